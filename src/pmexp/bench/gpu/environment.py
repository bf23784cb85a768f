"""Describes what the figures were taken on."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from pmexp.measure.environment import gpu_driver
from pmexp.packed_dropout.ops import kernels


def environment(device: torch.device) -> dict[str, str]:
    """Hardware, driver and versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "memory": _memory(device),
        "driver": gpu_driver() if device.type == "cuda" else "none",
        "CUDA": torch.version.cuda or "none",
        **{name: _version(name) for name in ("torch", "triton", "transformers", "numpy")},
        "python": platform.python_version(),
        "dropout": kernels(device),
        "fp32 products": torch.get_float32_matmul_precision(),
    }


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return "the host's"
    return f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
