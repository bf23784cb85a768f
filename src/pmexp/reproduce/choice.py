"""Chooses from the study's experiments what fits into some GPU-hours, and says what does not, and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hydra_plugins.pmexp_launchers.sweep import distinct
from pmexp.command.compose import compose_sweep
from pmexp.config import RunConfig
from pmexp.fit.cost import costs
from pmexp.fit.options import FitOptions
from pmexp.shown import counted

# In the order in which the study asks: what comes first is taken first.
STUDY = (
    "exp-1-main-perf",
    "exp-1-lengths",
    "exp-2-system-scale",
    "exp-2-regimes",
    "exp-1-ablations",
    "exp-1-bit-flips",
    "exp-1-learning-rate",
    "exp-1-long-inputs",
    "exp-1-sequence-length",
    "exp-1-batch-size",
    "exp-lora",
    "exp-1-language",
    "exp-2-learning-rate",
)
START_S = 30.0  # assumed of each run: its start, its evaluations and its end


@dataclass(frozen=True)
class Piece:
    """The runs of one task of one experiment that take as many GPUs: they are run together, or left out."""

    experiment: str
    task: str
    runs: list[RunConfig]
    gpus: int  # each run takes so many
    hours: float | None  # GPU-hours of all runs; None where they were not estimated
    why: str = ""  # says why it is left out; empty for what is run

    @property
    def row(self) -> str:
        """The line of the table in Markdown."""
        hours = "-" if self.hours is None else f"{self.hours:.2g}"
        cells = [self.experiment, self.task, len(self.runs), self.gpus, hours, self.why or "runs"]
        return f"| {' | '.join(map(str, cells))} |"


def choose(experiments: Iterable[str], options: FitOptions, gpus: int) -> list[Piece]:
    """The pieces of all experiments, in their order; those are left out that need more than `gpus`, or more
    GPU-hours than those before them leave of options.budget_hours. Raises UserError."""
    left, pieces = options.budget_hours, []
    for name in experiments:
        for piece in _pieces(name, options, gpus):
            hours = piece.hours or 0.0
            if not piece.why and hours > left:
                piece = replace(piece, why=f"left out: {left:.2g} GPU-hours are left")
            elif not piece.why:
                left -= hours
            pieces.append(piece)
    return pieces


def _pieces(experiment: str, options: FitOptions, gpus: int) -> list[Piece]:
    overrides = [f"experiment={experiment}", "share_training=true", *options.overrides]
    groups: dict[tuple[str, int], list[RunConfig]] = {}
    for run in distinct(compose_sweep(overrides).runs):
        groups.setdefault((str(run.labels["task"]), run.system.processes), []).append(run)
    return [_piece(experiment, task, needed, runs, options, gpus) for (task, needed), runs in groups.items()]


def _piece(
    experiment: str, task: str, needed: int, runs: list[RunConfig], options: FitOptions, gpus: int
) -> Piece:
    if needed > gpus:
        return Piece(experiment, task, runs, needed, None, f"left out: needs {needed} GPUs, has {gpus}")
    start_hours = len(runs) * needed * START_S / 3600
    return Piece(experiment, task, runs, needed, sum(one.hours for one in costs(runs, options)) + start_hours)


def table(pieces: Sequence[Piece]) -> str:
    """What is run and what is left out, in Markdown."""
    taken = [piece for piece in pieces if not piece.why]
    hours = sum(piece.hours or 0.0 for piece in taken)
    head = ["| experiment | task | runs | GPUs a run | GPU-hours | |", "|---|---|---:|---:|---:|---|"]
    total = f"{counted(sum(len(piece.runs) for piece in taken), 'run')}, {hours:.2g} GPU-hours"
    return "\n".join([*head, *(piece.row for piece in pieces), "", total])
