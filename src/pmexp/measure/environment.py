"""What a run ran on, flat, for its record."""

import os
import platform
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from pmexp.packed_dropout import backend, torch_rng_record

# Read once, when the parent of all workers imports this: reading metadata takes longer than starting a run.
_VERSIONS = {
    f"version_{name}": version(name) for name in ("torch", "transformers", "numpy", "hydra-core", "mlflow")
}


def environment(device: torch.device) -> dict[str, str | int]:
    """Host, processor, device, threads, versions, code version and dropout backend."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dropout_backend": backend(device),
        **({"dropout_torch_rng": _listed(torch_rng_record())} if torch_rng_record() else {}),
        **_VERSIONS,
        **_git(),
    }


def _listed(counts: dict[str, int]) -> str:
    return "; ".join(f"{what}: {count}" for what, count in counts.items())


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git() -> dict[str, str]:
    """Commit of the source tree and whether it was changed; nothing for an installed package."""
    here = Path(__file__).parent
    commit = _output(["git", "-C", str(here), "rev-parse", "HEAD"])
    if commit is None:
        return {}
    changes = _output(["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no"])
    return {"git_commit": commit, "git_changed": "yes" if changes else "no"}


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
