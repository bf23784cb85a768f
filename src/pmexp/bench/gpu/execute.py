"""Runs the stages one after the other, each in its own process, and writes what is known after each.

A stage that fails, hangs or poisons its CUDA context costs its own figures and no others'. This process
never touches the device, so nothing of it lies beside a peak.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pmexp.bench.gpu.bench import read_findings
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.plan import Stage

_GRACE = 8.0  # seconds behind its time after which a stage is killed: an alarm does not end a kernel
_ENDED = {0: "done", 1: "failed", 3: "out of time"}

Record = dict[str, Any]  # what is written: plain types


def execute(
    record: Record,
    stages: Sequence[Stage],
    device: str,
    size: str,
    budget: Budget,
    write: Callable[[Record], None],
) -> None:
    """Adds to `record` what each stage found and calls `write` after each.

    A stage has its share of the time that is left, so what one leaves over goes to those behind it.
    """
    record["stages"] = [_entry(stage) for stage in stages]
    write(record)
    with TemporaryDirectory() as folder:
        for place, stage in enumerate(stages):
            share = stage.seconds / sum(later.seconds for later in stages[place:])
            seconds = max(1.0, share * budget.left - _GRACE / len(stages))
            findings = Path(folder) / f"{stage.name}.jsonl"
            print(f"{stage.title}: {seconds:.0f} s at most", file=sys.stderr, flush=True)
            entry = record["stages"][place]
            started = time.monotonic()
            try:
                entry["ended"] = _run(stage, findings, device, size, seconds)
            finally:
                entry["took_seconds"] = round(time.monotonic() - started, 1)
                _add(record, entry, findings)
                write(record)


def _entry(stage: Stage) -> Record:
    lists: Record = {kind: [] for kind in ("checks", "notes", "failed", "left_out")}
    return {"name": stage.name, "title": stage.title, "ended": "not begun", "tables": {}} | lists


def _run(stage: Stage, findings: Path, device: str, size: str, seconds: float) -> str:
    """Runs the stage in a process of its own, and returns in words how it ended."""
    arguments = [stage.module, str(findings), device, size, f"{seconds:.1f}", str(time.monotonic())]
    process = subprocess.Popen(
        [sys.executable, "-m", "pmexp.bench.gpu.stage_process", *arguments],
        env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"},  # no pool of compilers beside it
        start_new_session=True,  # what it starts ends with it
        stdout=sys.stderr,
    )
    try:
        status = process.wait(seconds + _GRACE)
        return _ENDED.get(status, f"ended by signal {-status}" if status < 0 else f"exit code {status}")
    except subprocess.TimeoutExpired:
        return f"hung, and was killed {_GRACE:g} s behind its time"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _add(record: Record, entry: Record, findings: Path) -> None:
    for line in read_findings(findings):
        match line.pop("kind"):
            case "environment":
                record.setdefault("environment", line["found"])
            case "row":
                entry["tables"].setdefault(line["table"], []).append(line["cells"])
            case "check":
                entry["checks"].append(line)
            case "note":
                entry["notes"].append(line["text"])
            case kind:
                entry[kind].append(line["text"])
