"""Reads from autograd's graph what was done to a tensor between its making and its saving, to do it again.

The nodes of views hold their arguments, and every node the shape and dtype of its result. All is done by
index and not by place in memory, so a copy is what it is a copy of.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]
_CAST = "ToCopyBackward0"
COPIES = frozenset([_CAST, "CloneBackward0"])


def step_of(node: Any) -> Step:
    """Returns a function that does again what `node` did, one of a view or a copy."""
    name = type(node).__name__
    if name == _CAST:
        result = node._input_metadata[0]
        dtype, device = result.dtype, result.device
        return lambda x: x.to(device, dtype)
    return VIEWS[name](node) if name in VIEWS else itself


def itself(x: Tensor) -> Tensor:
    """Returns `x`, for a view that changes nothing."""
    return x


def reads_otherwise(view: Tensor, base: Tensor) -> bool:
    """Whether the elements of a view of `base` are other numbers than those that lie there."""
    return view.dtype != base.dtype or view.is_neg()


def _reshaped(node: Any) -> Step:
    shape = node._input_metadata[0].shape
    return lambda x: x.reshape(shape)


def _unsqueezed(node: Any) -> Step:
    dim = _signed(node._saved_dim)
    return lambda x: x.unsqueeze(dim)


def _expanded(node: Any) -> Step:
    shape = node._input_metadata[0].shape
    return lambda x: x.expand(shape)


def _transposed(node: Any) -> Step:
    one, other = _signed(node._saved_dim0), _signed(node._saved_dim1)
    return lambda x: x.transpose(one, other)


def _matrix_transposed(node: Any) -> Step:
    return lambda x: x.t()


def _permuted(node: Any) -> Step:
    dims = [_signed(dim) for dim in node._saved_dims]
    return lambda x: x.permute(dims)


def _sliced(node: Any) -> Step:
    dim, step = _signed(node._saved_dim), node._saved_step
    start, end = _signed(node._saved_start), _signed(node._saved_end)
    return lambda x: torch.ops.aten.slice(x, dim, start, end, step)


def _selected(node: Any) -> Step:
    dim, index = _signed(node._saved_dim), _signed(node._saved_index)
    return lambda x: x.select(dim, index)


def _signed(number: int) -> int:
    """An argument of a node: a negative one is given as the unsigned number of the same 64 bits."""
    return number - 2**64 if number >= 2**63 else number


_RESHAPED = (
    *("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"),
    *("SqueezeBackward0", "SqueezeBackward1", "SqueezeBackward2"),
)
VIEWS: dict[str, Callable[[Any], Step]] = {
    **dict.fromkeys(_RESHAPED, _reshaped),
    "UnsqueezeBackward0": _unsqueezed,
    "ExpandBackward0": _expanded,
    "TransposeBackward0": _transposed,
    "TBackward0": _matrix_transposed,
    "PermuteBackward0": _permuted,
    "SliceBackward0": _sliced,
    "SelectBackward0": _selected,
}
PASSED = frozenset([*COPIES, *VIEWS])  # nodes whose step can be done again
