"""Defines the options of dropout with packed masks, and says whether a mask or a graph is needed."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pmexp.packed_dropout import reference

Rng = Literal["philox", "torch"]
_RNGS = get_args(Rng)


@dataclass(slots=True)
class Options:
    """Says how one mask is drawn and kept: the keywords of packed_dropout.

    A dataclass and no tuple, since transforms take tuples apart.
    """

    p: float
    bits: int
    cache_unpacked: bool
    rng: Rng
    flip_rate: float


def check_options(p: float, bits: int = 1, rng: str = "philox", flip_rate: float = 0.0) -> None:
    """Raises ValueError naming the first option that is out of range."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p: {p} is not a dropout probability; allowed is 0 to 1")
    reference.values_per_byte(bits)
    if rng not in _RNGS:
        raise ValueError(f"rng: {rng!r} is unknown; allowed are {', '.join(_RNGS)}")
    if not 0.0 <= flip_rate <= 1.0:
        raise ValueError(f"flip_rate: {flip_rate} is not a share of bits; allowed is 0 to 1")


def needs_mask(input: Tensor, p: float, training: bool) -> bool:
    """Whether dropout has to draw a mask.

    Raises TypeError for an integer or a sparse tensor of which something is to be dropped, and
    NotImplementedError where forward-mode derivatives are compiled: torch.compile knows none of an
    autograd.Function.
    """
    if not training or p == 0.0:
        return False  # `input` stays as it is, of whatever dtype and layout
    if not input.is_floating_point():
        raise TypeError(f"dropout takes a floating-point tensor, got {input.dtype}")
    if input.layout is not torch.strided:
        raise TypeError(f"dropout takes a dense or nested tensor, got {input.layout}")
    if p == 1.0 or input.numel() == 0:
        return False
    if forward_ad._current_level >= 0 and torch.compiler.is_compiling():
        raise NotImplementedError("packed masks have no forward-mode derivative")
    return True


def dropped_without_mask(input: Tensor, p: float, training: bool, inplace: bool = False) -> Tensor:
    """Returns the result where `needs_mask` says no: `input`, or zeros of it."""
    if not training or p < 1.0:
        return input
    return input.mul_(0.0) if inplace else input * 0.0


def needs_graph(input: Tensor, flip_rate: float = 0.0) -> bool:
    """Whether the function has to run as an autograd.Function.

    It need not in an exported program, whose operators have gradients of their own, nor in a compiled graph
    where nothing needs a gradient, since dynamo refuses mark_dirty there. In eager mode it always has to:
    operators alone would give wrong tangents.

    Raises ValueError for a `flip_rate` in an exported program, whose operators see the same bits in backward.
    """
    if torch.compiler._is_exporting_flag:  # is_exporting() is True in any compiled graph before torch 2.13
        if flip_rate:
            raise ValueError(f"flip_rate: {flip_rate} cannot be exported; allowed is 0")
        return False
    return not torch.compiler.is_compiling() or (torch.is_grad_enabled() and input.requires_grad)
