"""Reads from autograd's graph what was done to a tensor between its making and its saving, and does it again.

The nodes of views hold their arguments. All is done by index and not by place in memory, so a copy is what it
is a copy of.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]
Shape = Sequence[int]
CAST = "ToCopyBackward0"
COPIES = {CAST, "CloneBackward0"}
UNSAFE_VIEW = "UnsafeViewBackward0"
_RESHAPED = {"ViewBackward0", UNSAFE_VIEW, "ReshapeAliasBackward0"}
_RESHAPED |= {"SqueezeBackward0", "SqueezeBackward1"}


def steps_of(nodes: list[Any], shape: Shape, dtype: torch.dtype, device: torch.device) -> list[Step] | None:
    """Returns functions that, applied in order, do again what `nodes` did, the last node first.

    shape, dtype, device: of the first node's result. None for a node of another kind, or more than one cast.
    """
    steps: list[Step] = []
    casts = 0
    for node in nodes:
        name = type(node).__name__
        if name == CAST:
            casts += 1
            steps.append(lambda x: x.to(device, dtype))
        elif name not in COPIES:
            view = VIEWS.get(name)
            if view is None:
                return None
            step, shape = view(node, tuple(shape))
            steps.append(step)
    return steps[::-1] if casts < 2 else None


def _reshaped(node: Any, shape: Shape) -> tuple[Step, Shape]:
    return lambda x: x.reshape(shape), node._saved_self_sym_sizes


def _unsqueezed(node: Any, shape: Shape) -> tuple[Step, Shape]:
    dim = _signed(node._saved_dim) % len(shape)
    return lambda x: x.unsqueeze(dim), (*shape[:dim], *shape[dim + 1 :])


def _expanded(node: Any, shape: Shape) -> tuple[Step, Shape]:
    return lambda x: x.expand(shape), node._saved_self_sym_sizes


def _transposed(node: Any, shape: Shape) -> tuple[Step, Shape]:
    one, other = _signed(node._saved_dim0) % len(shape), _signed(node._saved_dim1) % len(shape)
    before = list(shape)
    before[one], before[other] = shape[other], shape[one]
    return lambda x: x.transpose(one, other), before


def _matrix_transposed(node: Any, shape: Shape) -> tuple[Step, Shape]:
    return lambda x: x.t(), shape[::-1]


def _permuted(node: Any, shape: Shape) -> tuple[Step, Shape]:
    dims = [_signed(dim) % len(shape) for dim in node._saved_dims]
    before = list(shape)
    for place, dim in enumerate(dims):
        before[dim] = shape[place]
    return lambda x: x.permute(dims), before


def _sliced(node: Any, shape: Shape) -> tuple[Step, Shape]:
    dim, step = _signed(node._saved_dim), node._saved_step
    start, end = _signed(node._saved_start), _signed(node._saved_end)
    return lambda x: torch.ops.aten.slice(x, dim, start, end, step), node._saved_self_sym_sizes


def _selected(node: Any, shape: Shape) -> tuple[Step, Shape]:
    dim, index = _signed(node._saved_dim), _signed(node._saved_index)
    return lambda x: x.select(dim, index), node._saved_self_sym_sizes


def _signed(number: int) -> int:
    """An argument of a node: a negative one is given as the unsigned number of the same 64 bits."""
    return number - 2**64 if number >= 2**63 else number


VIEWS: dict[str, Callable[[Any, Shape], tuple[Step, Shape]]] = {
    **dict.fromkeys(_RESHAPED, _reshaped),
    "UnsqueezeBackward0": _unsqueezed,
    "ExpandBackward0": _expanded,
    "TransposeBackward0": _transposed,
    "TBackward0": _matrix_transposed,
    "PermuteBackward0": _permuted,
    "SliceBackward0": _sliced,
    "SelectBackward0": _selected,
}
