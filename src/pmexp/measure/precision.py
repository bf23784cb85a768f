"""Says what a model is made of: its dtypes, its attention, the parts that torch.compile has taken over."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pmexp.shown import counted

_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}


def precision(module: nn.Module, planned: str) -> dict[str, str | int]:
    """The number of parameters of each dtype, that of the trained ones where others are frozen, and the
    precision that the dtypes give with the system's.

    planned: the system's for fp32 weights, "fp32" or "bf16 autocast"; other weights are named beside it.
    """
    counts: Counter[torch.dtype] = Counter()
    for parameter in module.parameters():
        counts[parameter.dtype] += parameter.numel()
    weights = " and ".join(sorted(_SHORT.get(dtype, _name(dtype)) for dtype in counts))
    ran = planned if weights == "fp32" else f"{weights} weights, {planned} system"
    sizes = {f"parameters_{_name(dtype)}": count for dtype, count in counts.items()}
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    beside_frozen = {"parameters_trained": trained} if trained < counts.total() else {}
    return {"precision": ran, **sizes, **beside_frozen}


def attention(module: nn.Module) -> str:
    """The implementation that transformers runs."""
    config: Any = getattr(module, "config", None)
    return str(getattr(config, "_attn_implementation", "unknown"))


def compiled_parts(module: nn.Module) -> list[nn.Module]:
    """The modules in `module` on which nn.Module.compile() was called, or that torch.compile has made of one:
    no instrument may pass off eager figures as theirs."""
    parts = module.modules()
    return [part for part in parts if part._compiled_call_impl is not None or hasattr(part, "_orig_mod")]


def masks_in_graphs(module: nn.Module, loss: Tensor) -> str:
    """Says so where functions that torch.compile has compiled are called by modules that it has not, by the
    graph behind `loss`: the ledger sees what they save, and no dropout in them. Empty else."""
    if compiled_parts(module):  # They have no figures of masks.
        return ""
    count, waiting, seen = 0, [loss.grad_fn], set[Node]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        count += type(node).__name__.startswith("CompiledFunction")
        waiting += [before for before, _ in node.next_functions]
    if not count:
        return ""
    return (
        f"torch.compile: {counted(count, 'graph')} of functions in modules that are not compiled: where they "
        "drop, their masks are in memory/saved_bytes and not in memory/mask_bytes; compile the module, or "
        "leave it out to measure masks"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
