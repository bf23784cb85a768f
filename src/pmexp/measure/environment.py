"""Describes what a run ran on, as a flat mapping for its record."""

import os
import platform
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pmexp.packed_dropout import native, ops, torch_rng_record
from pmexp.process import usable_cores


def _version(package: str) -> str:
    """The version that is installed; words for a package that is imported from elsewhere."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


GIT = ["git", "-C", str(Path(__file__).parent)]
_DIFF_DIGITS = 12  # kept of the digest of uncommitted changes
# Read once, when the parent of all workers imports this: reading metadata takes longer than starting a run.
_PACKAGES = ("pmexp", "transformers", "numpy", "hydra-core", "mlflow")
_VERSIONS = {f"version_{name}": _version(name) for name in _PACKAGES}


def environment(device: torch.device) -> dict[str, str | int]:
    """Host, processor, device with its driver, threads, versions, code version and dropout backend.

    Who calls that backend is part of it where packed dropout was in use in this process (`dropout_calls`).
    """
    calls = native.calls_so_far(device)
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count() or 0,
        "cpu_usable": usable_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        **({"driver": gpu_driver()} if device.type == "cuda" else {}),
        "dropout_backend": ops.kernels(device),
        **({"dropout_calls": calls} if calls else {}),
        **({"dropout_torch_rng": _listed(torch_rng_record())} if torch_rng_record() else {}),
        "version_torch": torch.__version__,  # which names its CUDA, as its metadata do not
        **_VERSIONS,
        **git_version(),
    }


def _listed(counts: dict[str, int]) -> str:
    return "; ".join(f"{what}: {count}" for what, count in counts.items())


def cpu_name() -> str:
    """The processor's model."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def gpu_driver() -> str:
    """Returns the version of NVIDIA's driver, "unknown" where nvidia-smi does not tell."""
    told = output_of(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return (told or "").partition("\n")[0].strip() or "unknown"


@cache
def git_version() -> dict[str, str]:
    """Commit of the source tree and whether it was changed when first asked, with a digest of the difference;
    {} for an installed package.

    A package installed below somebody's repository is no part of it: this file has to be tracked there.
    """
    if output_of([*GIT, "ls-files", "--error-unmatch", __file__]) is None:
        return {}
    commit, changes = outputs_of(
        [*GIT, "rev-parse", "HEAD"], [*GIT, "diff", "--no-ext-diff", "--no-color", "--binary", "HEAD"]
    )
    if not commit:
        return {}
    if changes is None:
        return {"git_commit": commit, "git_changed": "not known"}
    digest = sha256(changes.encode()).hexdigest()[:_DIFF_DIGITS]
    return {"git_commit": commit} | (
        {"git_changed": "yes", "git_diff": digest} if changes else {"git_changed": "no"}
    )


def outputs_of(*commands: list[str]) -> list[str | None]:
    """What `output_of` returns for each of the commands, which are executed at the same time."""
    with ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(output_of, commands))


def output_of(command: list[str]) -> str | None:
    """What the command prints, without line ends around it; None where it fails or takes 10 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip("\n") if done.returncode == 0 else None
