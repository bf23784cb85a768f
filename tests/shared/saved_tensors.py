"""Shows what autograd saves, for tests of what it should not."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def saved_by(function: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The result of `function`, and each tensor saved for backward while it ran."""
    saved: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        return function(), saved


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal to the sign of a zero; a NaN equals a NaN."""
    if a.is_complex():
        return same_bits(torch.view_as_real(a), torch.view_as_real(b))
    if a.dtype != b.dtype or not torch.equal(a.isnan(), b.isnan()):
        return False
    numbers = ~a.isnan()
    return torch.equal(a[numbers], b[numbers]) and torch.equal(a[numbers].signbit(), b[numbers].signbit())
