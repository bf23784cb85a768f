"""Estimates, for cost=true, the GPU-hours of an experiment by task, and what of it a budget has no room for.

A step's time is measured (a file of step times) or modelled: the operations of its matrix products over what
the card does at most, times the utilisation assumed. Early stopping is not counted on; evaluations, start and
data are left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pmexp.command.compose import compose_sweep
from pmexp.config import DatasetKind, Matmul, Objective, Part, RunConfig
from pmexp.errors import UserError, first_line
from pmexp.fit.options import FitOptions
from pmexp.measure.flops import peak_tflops
from pmexp.run_folder.plan import MEASURED_ONLY
from pmexp.shown import counted
from pmexp.training.step_plan import StepPlan

# Samples to train on, as the datasets' own pages state them.
_SAMPLES = {"mrpc": 3_668, "sst2": 67_349, "imagenet1k": 1_281_167, "wmt16-ro-en": 610_320}
_TOKENS = {"wikitext103": 118_000_000}  # word pieces, of 103 million words
_TRAINED_SHARE = 0.8  # the share of generated trees that is trained on
_counted: dict[str, int] = {}  # operations of a sample, by all that they depend on


@dataclass(frozen=True)
class TaskCost:
    """The cost of the runs of one task that take equally long."""

    name: str
    runs: int
    steps: int
    step_s: float
    how: str  # measured, or what was counted
    processes: int

    @property
    def hours(self) -> float:
        """GPU-hours of all runs."""
        return self.runs * self.steps * self.step_s * self.processes / 3600

    @property
    def row(self) -> str:
        """The line of the table in Markdown."""
        cells = [self.name, self.runs, self.steps, f"{self.step_s:.3g} ({self.how})", f"{self.hours:.1f}"]
        return f"| {' | '.join(map(str, cells))} |"


def cost(options: FitOptions) -> str:
    """The table and what it assumes. Raises UserError for a card or dataset that is not known."""
    runs = compose_sweep(options.overrides).runs
    tasks = costs(runs, options)
    lines = ["| task | runs | steps a run | s a step | GPU-hours |", "|---|---:|---:|---:|---:|"]
    lines += [task.row for task in tasks]
    total = sum(task.hours for task in tasks)
    lines += [
        "",
        f"{counted(len(runs), 'run')}, {total:.1f} GPU-hours of {options.budget_hours:g}. "
        f"{_left_out(tasks, options)}",
    ]
    return "\n".join([*lines, "", _assumptions(runs, options), ""])


def costs(runs: Sequence[RunConfig], options: FitOptions) -> list[TaskCost]:
    """The cost of the runs, one entry for those that cost alike. Raises UserError for a card or dataset that
    is not known."""
    measured = _step_times(options.step_times) if options.step_times else {}
    groups: dict[tuple[object, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault(_alike(run), []).append(run)
    return [_task(group, options, measured) for group in groups.values()]


def _left_out(tasks: Sequence[TaskCost], options: FitOptions) -> str:
    """What does not fit where the cheapest tasks come first."""
    left, out = options.budget_hours, []
    for task in sorted(tasks, key=lambda task: task.hours):
        left -= task.hours
        if left < 0:
            out.append(task.name)
    return f"Does not fit: {', '.join(out)}." if out else "All of it fits."


def _alike(run: RunConfig) -> tuple[object, ...]:
    """What gives runs one cost, by their configuration."""
    return (run.labels["task"], run.dataset.max_length, run.system.name, run.train.batch_size, _steps(run))


def _task(runs: Sequence[RunConfig], options: FitOptions, measured: dict[str, float]) -> TaskCost:
    first = runs[0]
    name = str(first.labels["task"])
    if not first.takes_images:
        name += f" at {first.dataset.max_length}"
    if first.system.parts:
        name += f", {first.system.name}"
    if name in measured:
        step_s, how = measured[name] / 1000, "measured"
    else:
        operations = _operations(first)
        peak, _ = _peak(first, options)
        step_s = operations / (peak * 1e12 * options.utilisation)
        how = f"{operations / 1e12:.3g} TFLOP"
    name += MEASURED_ONLY * bool(first.train.shared_with)
    return TaskCost(name, len(runs), _steps(first), step_s, how, first.system.processes)


def _steps(run: RunConfig) -> int:
    try:
        samples = _samples(run)
    except UserError:
        if run.train.max_steps is None:
            raise
        return run.train.last_step(run.train.max_steps)
    return StepPlan(run.train, samples).last_step


def _samples(run: RunConfig) -> int:
    data = run.dataset
    if data.kind is DatasetKind.listops and data.trees is not None:
        return int(data.trees.samples * _TRAINED_SHARE)
    if data.name in _TOKENS:
        own = 2 if data.objective is Objective.masked_lm else 0  # a block begins and ends with one of its own
        return _TOKENS[data.name] // (data.max_length - own)
    if data.name not in _SAMPLES:
        known = ", ".join([*_SAMPLES, *_TOKENS])
        raise UserError(
            f"dataset={data.name}: the number of its training samples is not known (but that of {known}); "
            "set train.max_steps"
        )
    return _SAMPLES[data.name]


def _operations(run: RunConfig) -> int:
    """Floating-point operations of a step on one process; a sample's are counted once for all variants."""
    from pmexp.fit.simulate import counted_of, simulated_operations

    assert run.train.batch_size
    sample = counted_of(run)
    if sample not in _counted:
        _counted[sample] = simulated_operations(run, 1, run.dataset.max_length)
    return _counted[sample] * (run.train.batch_size // run.system.processes)


def _precision(run: RunConfig, options: FitOptions) -> str:
    if options.products != "run":
        return options.products
    float32 = "fp32" if run.system.matmul is Matmul.highest else "tf32"
    return next((part.name for part in (Part.bf16, Part.fp16) if part in run.system.parts), float32)


def _peak(run: RunConfig, options: FitOptions) -> tuple[float, str]:
    peak, source = peak_tflops(options.card, _precision(run, options))
    if peak is None:
        raise UserError(
            f"card: {source}; name another card, as torch.cuda.get_device_name does, or set products="
        )
    return peak, source


def _assumptions(runs: Sequence[RunConfig], options: FitOptions) -> str:
    peaks = dict.fromkeys(f"{_peak(run, options)[1]}" for run in runs)
    said = [
        f"Assumed: {options.card}, {'; '.join(peaks)}, of which a step reaches {options.utilisation:.0%} "
        "(utilisation); every sample at full length; no early stop.",
        "Left out: evaluations, start, reading data, and what a variant's own kernels take.",
    ]
    if any(run.dataset.name in _TOKENS for run in runs):
        said.append(f"WikiText-103 has {_TOKENS['wikitext103'] / 1e6:g} million word pieces (estimated).")
    if options.step_times:
        said.append(f"Measured step times are those of {options.step_times}.")
    return "\n\n".join(said)


def _step_times(file: Path) -> dict[str, float]:
    try:
        times = {str(task): float(ms) for task, ms in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"step_times: {file} cannot be read ({first_line(error)}); "
            'it holds {"<task>": <milliseconds a step>}'
        ) from None
    if wrong := [task for task, ms in times.items() if not 0 < ms < float("inf")]:
        raise UserError(f"step_times: {file} has no time above 0 for {wrong[0]}")
    return times
