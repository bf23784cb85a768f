"""Reads the keys, runs the stages, and returns an exit code."""

import json
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.claims import claims
from pmexp.bench.gpu.execute import execute
from pmexp.bench.gpu.page import page
from pmexp.bench.gpu.plan import STAGES, TOTAL_SECONDS, Stage
from pmexp.command_line import Command, Given, Key, whole
from pmexp.command_line.output import write
from pmexp.errors import UserError

COMMAND = Command(
    "pmexp.bench.gpu",
    "what only a CUDA device can settle, stage by stage; needs torch, transformers, triton and numpy",
    (
        Key("out", "the page; the same as JSON beside it", "docs/results/gpu.md"),
        Key("seconds", "that it takes at most; what does not fit in is named", str(TOTAL_SECONDS)),
        Key("stages", f"all, or some of {', '.join(stage.name for stage in STAGES)}", "all"),
        Key("size", "tiny sizes try the code and measure nothing", "full", ("full", "tiny")),
        Key("device", "cpu needs size=tiny", "cuda", ("cuda", "cpu")),
    ),
)
_NEEDED = ("torch", "transformers", "triton", "numpy")
_FEWEST_SECONDS, _MOST_SECONDS = 20, 86400


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a check or a stage failed, 2 bad input or no CUDA, 130 interrupted."""
    return COMMAND.run(arguments, _measure, interrupted="interrupted: what was measured by then is written")


def _measure(given: Given) -> int:
    started = time.monotonic()
    stages = _stages(given["stages"])
    size, device = given["size"], given["device"]
    seconds = float(whole("seconds", given["seconds"], _FEWEST_SECONDS, "number of seconds", _MOST_SECONDS))
    if device == "cpu" and size == "full":
        raise UserError("device: cpu is there to try the code; add size=tiny")
    out = given.new_file("out", ".md")
    assert out is not None
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)}: not installed for {sys.executable}; this command needs them")
    if device == "cuda" and not _has_cuda():
        raise UserError("device: this command needs a CUDA device, and torch finds none here")
    record: dict[str, Any] = {
        "command": given.again("python3"),
        "date": date.today().isoformat(),
        "seconds": seconds,
        "size": size,
    }
    execute(record, stages, device, size, Budget(seconds, start=started), lambda so_far: _write(so_far, out))
    for fault in _faults(record):
        print(f"failed: {fault}", file=sys.stderr)
    print(out)
    return int(bool(_faults(record)))


def _has_cuda() -> bool:
    """Asks without making a context on the device, which would take of its memory."""
    import torch  # takes seconds, for which a wrong key need not wait

    return torch.cuda.is_available()


def _write(record: dict[str, Any], out: Path) -> None:
    """Writes the page to `out` and the record to the same name with .json, each replaced whole."""
    record["claims"] = claims(record)
    for path, text in (
        (out, page(record)),
        (out.with_suffix(".json"), json.dumps(record, indent=1) + "\n"),
    ):
        write(path, text)


def _faults(record: dict[str, Any]) -> list[str]:
    """What failed, a line each."""
    lines = []
    for stage in record["stages"]:
        if stage["ended"] not in ("done", "out of time"):
            lines.append(f"{stage['name']}: {stage['ended']}")
        lines += [f"{check['what']}: {check['detail']}" for check in stage["checks"] if not check["held"]]
        lines += stage["failed"]
    return lines


def _stages(text: str) -> list[Stage]:
    names = [stage.name for stage in STAGES]
    wanted = names if text == "all" else text.split(",")
    if unknown := [name for name in wanted if name not in names]:
        raise UserError(f"stages: {unknown[0]!r} is none; allowed are all, or some of {', '.join(names)}")
    return [stage for stage in STAGES if stage.name in wanted]
