"""Runs level=start: the time from the command to the first step that is taken, beside a bare script.

Both are processes of their own, in turn, and build the same model: their numbers of parameters are compared
first. What the run takes after its first step is not part of it.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pmexp.bench import bare_start
from pmexp.bench.options import StartOptions
from pmexp.bench.pairs import paired_ratio
from pmexp.bench.processes import execute
from pmexp.bench.results import write_record
from pmexp.command.compose import compose
from pmexp.config import RunConfig
from pmexp.errors import ContenderFailed
from pmexp.measure.environment import environment
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal_lines import read_lines

_RUN = (
    "train.max_steps=1",
    "train.evaluate=false",
    "train.select=last",
    "model=vit-digits",
    "dataset=digits",
)
_CLASSES = 10
WARM_UP = 1  # turns that fill the disk's cache, and do not count
WAYS = ("tracking=off", "tracking=mlflow")


@dataclass(frozen=True)
class StartRow:
    """What one way took from its command to the end of its first step; medians over the turns."""

    way: str
    seconds: float
    cpu_s: float  # CPU time that its whole process took
    ratio: float  # of the seconds to those of the bare script, over pairs of turns
    low: float  # its 95 % interval
    high: float


def run(options: StartOptions, command: str) -> None:
    """Measures, prints and, with `out`, writes start.csv and environment.json.

    Raises ContenderFailed where a way fails, or builds another model than the bare script.
    """
    import torch

    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ("bare script", *WAYS)}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_sizes(folder / "sizes.json", compose(_RUN))
        for turn in range(-WARM_UP, options.turns):
            seconds, cpu, parameters = _bare(folder)
            measured = {"bare script": (seconds, cpu)}
            for way in WAYS:
                measured[way] = _of_run(folder / way.partition("=")[2] / str(turn), way, parameters)
            for way, figures in measured.items() if turn >= 0 else ():
                taken[way].append(figures)
    rows = [_row(way, figures, taken["bare script"]) for way, figures in taken.items()]
    print("\n".join(_line(row) for row in rows))
    if options.out is not None:
        record = {"turns": options.turns, "command": command, "environment": environment(torch.device("cpu"))}
        print(*write_record(options.out, "start.csv", rows, record), sep="\n")


def _write_sizes(file: Path, config: RunConfig) -> None:
    told = {"classes": _CLASSES, "batch": config.train.batch_size, "architecture": config.model.architecture}
    file.write_text(json.dumps(told), encoding="utf-8")


def _bare(folder: Path) -> tuple[float, float, int]:
    done = execute([str(bare_start.__file__), str(folder / "sizes.json")], folder)
    ended, parameters = done.stdout.split()
    return float(ended) - done.started, done.cpu_s, int(parameters)


def _of_run(runs_dir: Path, override: str, parameters: int) -> tuple[float, float]:
    runs_dir.mkdir(parents=True)
    done = execute(["-m", "pmexp.train", *_RUN, override], runs_dir)
    (file,) = runs_dir.glob("runs/default/*/summary.json")
    built = json.loads(file.read_text())["environment"]["parameters_float32"]
    if built != parameters:
        raise ContenderFailed(f"{override}: built {built} parameters, and the bare script {parameters}")
    lines = (line for line, _ in read_lines(RunFolder(file.parent).journal, 0))
    ended = next(line["time"] for line in lines if line["metric"] == "train/loss")
    return ended - done.started, done.cpu_s


def _row(way: str, figures: list[tuple[float, float]], bare: list[tuple[float, float]]) -> StartRow:
    seconds = [one for one, _ in figures]
    pair = paired_ratio(seconds, [one for one, _ in bare])
    cpu = statistics.median(one for _, one in figures)
    return StartRow(way, statistics.median(seconds), cpu, pair.ratio, pair.low, pair.high)


def _line(row: StartRow) -> str:
    return (
        f"{row.way:<16}{row.seconds:7.2f} s to the end of the first step {row.ratio:6.2f}x "
        f"[{row.low:.2f}, {row.high:.2f}] of the bare script, {row.cpu_s:.1f} s of CPU in all"
    )
