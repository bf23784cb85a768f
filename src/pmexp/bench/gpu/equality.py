"""Tells whether two tensors are the same bits, and where they are not."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pmexp.bench.gpu.bench import Bench

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_STRETCH = 2**28  # elements that are compared at a time


def difference(got: Tensor, right: Tensor) -> str:
    """Where `got` is another tensor than `right`; "" where dtype, shape and all bits, signs of zeros
    included, are the same. It may lie on another device."""
    if (got.dtype, got.shape) != (right.dtype, right.shape):
        return f"{got.dtype} {tuple(got.shape)} in place of {right.dtype} {tuple(right.shape)}"
    one, other = _as_integers(got), _as_integers(right)
    for start in range(0, one.numel(), _STRETCH):
        a, b = one[start : start + _STRETCH].to(other.device), other[start : start + _STRETCH]
        if not torch.equal(a, b):
            differ = a != b
            place = start + int(differ.to(torch.uint8).argmax())
            values = [t.reshape(-1)[place].item() for t in (got, right)]
            return (
                f"{int(differ.sum())} of {a.numel()} elements from {start} on differ, first element "
                f"{place}: {values[0]} in place of {values[1]}"
            )
    return ""


def _as_integers(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()]).reshape(-1)


def check_all(bench: Bench, what: str, compared: Iterable[tuple[str, Tensor, Tensor]]) -> None:
    """Checks for each case that what was got is what is right, and names the first that is not."""
    cases = 0
    for case, got, right in compared:
        cases += 1
        if wrong := difference(got, right):
            bench.check(what, False, f"{case}: {wrong}")
            return
    bench.check(what, cases > 0, f"{cases} tensors")


def share_alike(first: Tensor, second: Tensor) -> float:
    """Share of the elements that two masks treat alike; independent ones of p = 0.5 have 0.5."""
    return ((first != 0) == (second != 0)).double().mean().item()


def gradient_of(y: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(y, x, grad)[0]


def leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def random(device: torch.device, dtype: torch.dtype, *shape: int, seed: int = 5) -> Tensor:
    """Normal numbers that are the same ones on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def rng_state(device: torch.device) -> Tensor:
    """The state of torch's default generator of `device`."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


Dropout = Callable[..., Tensor]  # called as F.dropout is
