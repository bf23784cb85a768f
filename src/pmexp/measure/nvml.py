"""Opens NVIDIA's management library for the device of this process."""

from typing import Any

import torch


def nvml_device(device: torch.device) -> tuple[Any, Any] | str:
    """The module pynvml and its handle of `device`, or why there is none."""
    if device.type != "cuda":
        return f"no NVML on {device.type}"
    try:
        import pynvml
    except ImportError:
        return "no NVML (pip install nvidia-ml-py)"
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
