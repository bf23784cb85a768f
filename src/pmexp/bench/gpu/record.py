"""What is written: the record's head, and its two files."""

import json
import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pmexp.bench.gpu.page import page
from pmexp.measure.peak_memory import PeakMemory
from pmexp.packed_dropout import backend

_DRIVER = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
_UNKNOWN = "unknown"


def new_record(command: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Command, date and hardware; plan.execute adds what is measured."""
    return {
        "command": command,
        "date": date.today().isoformat(),
        "seconds": seconds,
        "peak": PeakMemory(device).source,
        "environment": _environment(device),
    }


def write(record: dict[str, Any], out: Path) -> None:
    """The page to `out` and the record to the same name with .json, each replaced whole."""
    for path, text in (
        (out, page(record)),
        (out.with_suffix(".json"), json.dumps(record, indent=2) + "\n"),
    ):
        new = path.with_name(f"{path.name}.new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)


def _environment(device: torch.device) -> dict[str, str]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "memory": _memory(device),
        "driver": _driver() if device.type == "cuda" else "none",
        "CUDA": torch.version.cuda or "none",
        **{name: _version(name) for name in ("torch", "triton", "transformers", "numpy")},
        "python": platform.python_version(),
        "dropout": backend(device),
        "fp32 products": torch.get_float32_matmul_precision(),
    }


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return "the host's"
    return f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB"


def _driver() -> str:
    try:
        done = subprocess.run(_DRIVER, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return _UNKNOWN
    return (done.stdout.split() or [_UNKNOWN])[0] if done.returncode == 0 else _UNKNOWN


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
