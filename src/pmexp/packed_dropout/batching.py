"""Has vmap run the operators: one sample after the other, each with its own seed or mask where it has one.

Importing this module registers the rules.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pmexp.packed_dropout import ops, partitioning


def _each_sample(operator: Any) -> Callable[..., tuple[Any, int]]:
    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, int]:
        batched = [
            arg.movedim(dim, 0) if isinstance(arg, Tensor) and dim is not None else None
            for arg, dim in zip(args, in_dims, strict=True)
        ]

        def result(sample: int) -> Any:
            return operator(*(arg if b is None else b[sample] for arg, b in zip(args, batched, strict=True)))

        if info.batch_size == 0:  # a sample of zeros tells the shape that the empty result needs
            batched = [b if b is None else b.new_zeros((1, *b.shape[1:])) for b in batched]
        results = [result(sample) for sample in range(max(info.batch_size, 1))]
        if isinstance(results[0], Tensor):
            return torch.stack(results)[: info.batch_size], 0
        return tuple(torch.stack(part)[: info.batch_size] for part in zip(*results, strict=True)), 0

    return rule


for _name in (*ops.NAMES, *partitioning.NAMES):
    torch.library.register_vmap(f"pmexp::{_name}", _each_sample(getattr(torch.ops.pmexp, _name).default))
