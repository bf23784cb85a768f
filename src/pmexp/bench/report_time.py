"""Runs level=report: the time and memory that a report takes, by the number of runs.

The runs are copies of those of an experiment that is there, under other seeds. Each report is a process of
its own, and has to have counted as many runs as there are.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pmexp.bench.options import ReportOptions, make_folder
from pmexp.bench.processes import execute
from pmexp.bench.results import write_record
from pmexp.errors import ContenderFailed, UserError
from pmexp.measure.environment import environment
from pmexp.run_folder.files import write_atomically
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import find_runs
from pmexp.run_folder.state import State

_NAME = "copies"


@dataclass(frozen=True)
class ReportRow:
    """What the report of so many runs took."""

    runs: int
    seconds: float
    cpu_s: float
    cpu_ms_a_run: float
    peak_mib: float
    times_the_smallest: float  # CPU time a run, to that of the first row


def run(options: ReportOptions, command: str) -> None:
    """Measures, prints and, with `out`, writes report.csv and environment.json.

    Raises UserError where the experiment has no finished run, ContenderFailed where a report fails or has not
    judged all runs.
    """
    import torch

    runs = find_runs(options.runs_dir, options.name)
    sources = [each.path for each in runs if each.state is State.finished]
    if not sources:
        raise UserError(f"name: {options.name} has no finished run to copy; run it first")
    make_folder(options.out)
    rows: list[ReportRow] = []
    for count in options.counts:
        with TemporaryDirectory(dir=options.out) as scratch:
            _copy(sources, count, Path(scratch) / _NAME)
            rows.append(_measured(Path(scratch), count, rows[:1]))
            print(_line(rows[-1]), flush=True)
    if options.out is not None:
        record = {"command": command, "environment": environment(torch.device("cpu"))}
        print(*write_record(options.out, "report.csv", rows, record), sep="\n")


def _copy(sources: Sequence[Path], count: int, folder: Path) -> None:
    """Fills `folder` with `count` runs: the sources in turn, each round of them under seeds of its own."""
    for number, source in enumerate(islice(cycle(sources), count)):
        original, round_ = RunFolder(source), number // len(sources)
        copy = RunFolder(folder / f"{source.name[:-6]}{number:06d}")
        copy.path.mkdir(parents=True)
        summary: dict[str, Any] = json.loads(original.summary.read_text(encoding="utf-8"))
        seed = summary["labels"]["seed"] + 1_000_000 * round_
        summary["labels"]["seed"] = summary["settings"]["seed"] = seed
        summary["run_id"], summary["tracking"] = copy.path.name, None
        shutil.copy(original.journal, copy.journal)
        shutil.copy(original.path / "config.yaml", copy.path)
        write_atomically(copy.summary, json.dumps(summary))


def _measured(folder: Path, count: int, first: Sequence[ReportRow]) -> ReportRow:
    done = execute(
        ["-m", "pmexp_analysis", _NAME, f"runs_dir={folder}", f"out={folder / 'out'}", "figures=0"], folder
    )
    told = json.loads((folder / "out" / _NAME / "report.json").read_text(encoding="utf-8"))
    runs_of: Counter[str] = Counter()
    for row in told["rows"]:
        runs_of[row["metric"]] += row["n"]
    if (counted := max(runs_of.values(), default=0)) != count:
        raise ContenderFailed(f"the report of {count} runs counts {counted}")
    each = 1000 * done.cpu_s / count
    return ReportRow(
        count, done.wall_s, done.cpu_s, each, done.peak_mib, each / first[0].cpu_ms_a_run if first else 1.0
    )


def _line(row: ReportRow) -> str:
    return (
        f"{row.runs:>7} runs {row.seconds:8.2f} s {row.cpu_s:8.2f} s of CPU, {row.cpu_ms_a_run:.2f} ms a run "
        f"({row.times_the_smallest:.2f}x of the first row), {row.peak_mib:.0f} MiB"
    )
