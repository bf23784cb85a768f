"""How long a report takes: `python -m pmexp_analysis.benchmark runs=10000,100000`.

The run folders are made up, in a temporary folder that goes away: nothing of them is a result. A time is
printed only after the report has counted every run and found the difference that was planted.
"""

import csv
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pmexp.command_line import Command, Given, Key, importing, whole
from pmexp.command_line.output import write

with importing("report"):
    import numpy as np

    from pmexp.metrics.catalog import metric_of
    from pmexp.protocol import Bound, CriterionConfig, ProtocolConfig, Statistic
    from pmexp.run_folder.journal import digest_of_journal

COMMAND = Command(
    "pmexp_analysis.benchmark",
    "how long a report takes, over runs that are made up",
    (
        Key("runs", "numbers of runs, one report each", "10000,100000"),
        Key("against", "another source tree, such as an older checkout, timed beside this one"),
        Key("out", "the folder for report.csv"),
    ),
    word="runs",
)
_VARIANTS = ("baseline", "pm-drop", "no-cache", "4bit")
_THIS_TREE = Path(__file__).parents[2]
_SEEDS = 5
_STEPS = 20  # training losses in the journal of a run, which ends with its final values
_CHANGE = 0.03  # the fraction of the peak that pm-drop saves, which the report has to find
# There are about as many as a run has.
_SETTINGS = {"train.lr": 0.001, "train.batch_size": 32, **{f"train.key_{n}": n for n in range(100)}}
_METRICS = {
    "test/accuracy": 0.9, "val/accuracy": 0.9, "test/loss": 0.4, "val/loss": 0.4, "train/loss": 0.3,
    "memory/peak_bytes": 5e8, "memory/saved_bytes": 1e7, "speed/step_ms": 30.0, "speed/samples_per_s": 1000.0,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 130 interrupted."""
    return COMMAND.run(arguments, measure)


def measure(given: Given) -> None:
    """Makes runs, has them reported, and prints what that took. Raises UserError for a wrong number."""
    numbers = [whole("runs", number, what="number of runs") for number in given["runs"].split(",")]
    out = given.new_folder("out")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    rows = []
    for count in numbers:
        with tempfile.TemporaryDirectory(prefix="pmexp-report-") as folder:
            made = _make(Path(folder), count)
            for tree in filter(None, (given.path("against"), _THIS_TREE)):
                cost = _report(Path(folder), made, tree)
                print(f"{tree}: {made} runs: {cost}, {1000 * cost.cpu / made:.2f} ms of it a run", flush=True)
                rows.append((tree, made, *cost))
    if out is not None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("tree", "runs", "cpu_s", "clock_s", "memory_mb"), *rows])
        write(out / "report.csv", text.getvalue())
        print(out / "report.csv")


def _make(folder: Path, count: int) -> int:
    """Makes about `count` run folders, in as many tasks as that takes, and returns how many it made."""
    random = np.random.default_rng(0)
    per_task = len(_VARIANTS) * _SEEDS
    protocol = {"question": "How long does a report take?", "criteria": _criteria()}
    for task in range(max(1, count // per_task)):
        for variant in _VARIANTS:
            for seed in range(_SEEDS):
                values = {m: v * (1 + 0.01 * random.standard_normal()) for m, v in _METRICS.items()}
                base = 5e8 * (1 + seed / 100)
                values["memory/peak_bytes"] = base * (1 - _CHANGE * (variant == "pm-drop"))
                _write(folder / "runs" / "large", f"net/data{task}", variant, seed, values, protocol)
    return max(1, count // per_task) * per_task


def _criteria() -> dict[str, Any]:
    """Returns the criteria of an experiment; the planted saving decides the first of them."""
    criteria = {
        "peak": CriterionConfig(
            metric="memory/peak_bytes",
            statistic=Statistic.relative_change,
            threshold=-_CHANGE + 1e-6,
        ),
        "throughput": CriterionConfig(
            metric="speed/samples_per_s",
            statistic=Statistic.relative_change,
            comparison=Bound.within,
            threshold=0.02,
        ),
        "quality": CriterionConfig(
            metric="score",
            statistic=Statistic.difference_in_sigma,
            comparison=Bound.within,
            threshold=0.2,
        ),
    }
    ProtocolConfig(criteria=criteria)  # its checks
    return {
        name: {**vars(one), "statistic": one.statistic.name, "comparison": one.comparison.name}
        for name, one in criteria.items()
    }


def _write(
    folder: Path, task: str, variant: str, seed: int, values: dict[str, float], protocol: dict[str, Any]
) -> None:
    run = folder / f"{task.replace('/', '-')}-{variant}-{seed}"
    run.mkdir(parents=True)
    losses = [("train/loss", step, 2 / (1 + step)) for step in range(_STEPS)]
    finals = [(name, _STEPS, value) for name, value in values.items()]  # a journal ends with them
    lines = [json.dumps(_record(*one)) for one in losses + finals]
    (run / "journal.jsonl").write_text("\n".join(lines) + "\n")
    model, dataset = task.split("/")
    labels = {"task": task, "model": model, "dataset": dataset, "variant": variant, "system": "plain"}
    summary = {
        "status": "finished", "run_id": run.name, "labels": {**labels, "seed": seed}, "metrics": values,
        "settings": {"seed": seed, **_SETTINGS}, "environment": {"host": "none"}, "protocol": protocol,
        "journal": _digest(run / "journal.jsonl"),
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))


def _record(name: str, step: int, value: float) -> dict[str, Any]:
    """A value as a line of a journal holds it."""
    metric = metric_of(name)
    told = {"metric": name, "unit": metric.unit, "direction": metric.direction, "time": 0.0}
    return {**told, "step": step, "value": value}


def _digest(journal: Path) -> dict[str, Any]:
    return asdict(digest_of_journal(journal.read_bytes()))


class Cost(NamedTuple):
    """What a report took: seconds of the processor and of the clock, and its most memory in MB of 2^20."""

    cpu: float
    clock: float
    memory: float

    def __str__(self) -> str:
        return f"{self.cpu:.1f} s of the processor ({self.clock:.1f} s by the clock), {self.memory:.0f} MB"


def _report(folder: Path, runs: int, tree: Path) -> Cost:
    """The cost of the whole command out of a source tree, in a process of its own.

    Raises RuntimeError where it does not find what was planted."""
    started = time.perf_counter()
    places = [
        "--runs-dir",
        str(folder / "runs"),
        "--out",
        str(folder / "reports"),
    ]  # as older trees take them
    command = [sys.executable, "-m", "pmexp_analysis", "large", *places]
    sources = os.pathsep.join(str(tree.resolve() / part) for part in ("src", "analysis"))
    environment = {**os.environ, "PYTHONPATH": sources}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    clock = time.perf_counter() - started
    cost = Cost(used.ru_utime + used.ru_stime, clock, used.ru_maxrss / 1024)
    report = json.loads((folder / "reports" / "large" / "report.json").read_text())
    counted = sum(row["n"] for row in report["rows"] if row["metric"] == "test/accuracy")
    criterion = report["criteria"][0]
    if counted != runs or criterion["result"] != "pass" or abs(criterion["value"] + _CHANGE) > 1e-9:
        raise RuntimeError(f"the report counts {counted} of {runs} runs and says {criterion['why']}")
    return cost


if __name__ == "__main__":
    sys.exit(main())
