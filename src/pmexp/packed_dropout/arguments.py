"""Checks and computes what a compiled backend needs around its kernels, the same for every device."""

from functools import lru_cache

import torch
from torch import Tensor

from pmexp.packed_dropout import reference

kept_scale = lru_cache(maxsize=1024)(reference.kept_scale)


def keep_threshold(p: float) -> int:
    """Returns the number that the 32-bit random words of kept elements are below."""
    return round((1.0 - p) * 2**32)


def empty_packed(x: Tensor, bits: int) -> Tensor:
    """Returns uint8 memory on x's device for its packed mask. Raises ValueError unless bits is 1, 2 or 4."""
    reference.values_per_byte(bits)
    return x.new_empty(reference.packed_bytes(x.numel(), bits), dtype=torch.uint8)


def check_packed(packed: Tensor, numel: int, bits: int) -> None:
    """Raises ValueError where `packed` does not hold `numel` values of `bits` bits."""
    reference.values_per_byte(bits)
    if packed.dtype is not torch.uint8 or packed.numel() != reference.packed_bytes(numel, bits):
        raise ValueError(
            f"packed mask: {packed.numel()} x {packed.dtype} given, {numel} values at {bits} bit(s) "
            f"take {reference.packed_bytes(numel, bits)} x torch.uint8"
        )


def check_seed(seed: Tensor) -> None:
    """Raises ValueError where `seed` is not one int64."""
    if seed.dtype is not torch.int64 or seed.numel() != 1:
        raise ValueError(f"seed: one torch.int64 is needed, {seed.numel()} x {seed.dtype} given")


def with_layout(x: Tensor, dense: Tensor, y: Tensor) -> Tensor:
    """Returns y, computed from the contiguous copy `dense` of x, in the layout of empty_like(x)."""
    return y if dense is x else torch.empty_like(x).copy_(y)
