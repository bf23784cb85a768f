"""The command: keys in, exit code out."""

import json
import shlex
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
from pmexp.command.keys import own_keys, path_of
from pmexp.errors import UserError
from pmexp.masking import masked_arguments
from pmexp.run_folder.files import write_atomically

_USAGE = f"""\
python -m pmexp.bench.gpu [key=value ...]   what only a CUDA device can settle, stage by stage
  out=docs/results/gpu.md   the page; the same as JSON beside it
  seconds={TOTAL_SECONDS}               that it takes at most; what does not fit in is named
  stages=all                some of them: {", ".join(stage.name for stage in STAGES)}
  size=full                 or tiny: sizes that try the code and measure nothing
  device=cuda               or cpu, with size=tiny
Needs torch, transformers, triton and numpy; from the source tree with PYTHONPATH=src.
"""
_KEYS = ("out", "seconds", "stages", "size", "device")
_NEEDED = ("torch", "transformers", "triton", "numpy")
_FEWEST_SECONDS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a check or a stage failed, 2 bad input or no CUDA, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE, end="")
        return 0
    try:
        record = _measure(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was measured by then is written", file=sys.stderr)
        return 130
    return int(bool(_faults(record)))


def _measure(arguments: list[str]) -> dict[str, Any]:
    started = time.monotonic()
    keys, others = own_keys(arguments, _KEYS)
    if others:
        raise UserError(f"{others[0]}: is not a key of this command; allowed are {', '.join(_KEYS)}")
    stages = _stages(keys.get("stages", "all"))
    size = _one_of("size", keys.get("size", "full"), ("full", "tiny"))
    device = _one_of("device", keys.get("device", "cuda"), ("cuda", "cpu"))
    seconds = _seconds(keys.get("seconds", str(TOTAL_SECONDS)))
    if device == "cpu" and size == "full":
        raise UserError("device: cpu is there to try the code; add size=tiny")
    out = path_of({"out": "docs/results/gpu.md", **keys}, "out")
    assert out is not None
    if out.suffix != ".md" or not out.parent.is_dir():
        raise UserError(f"out: {out} cannot be written; name a file with .md in a folder that is there")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)}: not installed for {sys.executable}; this command needs them")
    if device == "cuda" and not _has_cuda():
        raise UserError("device: this command needs a CUDA device, and torch finds none here")
    command = shlex.join(["python3", "-m", "pmexp.bench.gpu", *masked_arguments(arguments)])
    record = {"command": command, "date": date.today().isoformat(), "seconds": seconds, "size": size}
    execute(record, stages, device, size, Budget(seconds, start=started), lambda found: _write(found, out))
    for fault in _faults(record):
        print(f"failed: {fault}", file=sys.stderr)
    print(out)
    return record


def _has_cuda() -> bool:
    """Asked without making a context on the device, which would take of its memory."""
    import torch  # takes seconds, for which a wrong key need not wait

    return torch.cuda.is_available()


def _write(record: dict[str, Any], out: Path) -> None:
    """The page to `out` and the record to the same name with .json, each replaced whole."""
    record["claims"] = claims(record)
    for path, text in (
        (out, page(record)),
        (out.with_suffix(".json"), json.dumps(record, indent=1) + "\n"),
    ):
        write_atomically(path, text)


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


def _one_of(key: str, text: str, allowed: Sequence[str]) -> str:
    if text not in allowed:
        raise UserError(f"{key}: {text!r} is unknown; allowed are {', '.join(allowed)}")
    return text


def _seconds(text: str) -> float:
    if not (text.isdecimal() and int(text) >= _FEWEST_SECONDS):
        allowed = f"allowed are {_FEWEST_SECONDS} and more"
        raise UserError(f"seconds: {text!r} is too little or no number; {allowed}")
    return float(text)
