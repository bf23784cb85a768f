"""What a model is made of, counted, and which attention it runs: for a run's record."""

from collections import Counter
from typing import Any

import torch
from torch import nn

_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}


def precision(module: nn.Module, planned: str) -> dict[str, str | int]:
    """The number of parameters of each dtype, and the precision that these give with the system's.

    planned: the system's for fp32 weights, "fp32" or "bf16 autocast"; other weights are named beside it.
    """
    counts: Counter[torch.dtype] = Counter()
    for parameter in module.parameters():
        counts[parameter.dtype] += parameter.numel()
    weights = " and ".join(sorted(_SHORT.get(dtype, _name(dtype)) for dtype in counts))
    found = planned if weights == "fp32" else f"{weights} weights, {planned} system"
    return {"precision": found} | {f"parameters_{_name(dtype)}": count for dtype, count in counts.items()}


def attention(module: nn.Module) -> str:
    """The implementation that transformers runs."""
    config: Any = getattr(module, "config", None)
    return str(getattr(config, "_attn_implementation", "unknown"))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
