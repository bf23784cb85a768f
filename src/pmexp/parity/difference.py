"""Compares two tensors: are they the same bits, and by how many units in the last place do they differ?"""

from dataclasses import dataclass

import torch
from torch import Tensor

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Difference:
    """Says how the tensor of b differs from that of a. The element shown is the one with the largest
    distance."""

    dtype: str  # that of both, or "float32 and bfloat16"
    shape: tuple[int, ...]
    elements: int
    differing: int
    index: tuple[int, ...]  # where the element that is shown stands
    a: float
    b: float
    units: float | None  # in the last place of the coarser dtype; None: not finite, or not of floats
    dropped_otherwise: int  # elements that are zero on one side alone

    def __str__(self) -> str:
        if not self.index and self.units is None:
            return self.dtype
        text = (
            f"{self.differing} of {self.elements} elements differ, the most at {list(self.index)}: "
            f"{self.a:.9g} in a, {self.b:.9g} in b"
        )
        if self.dropped_otherwise:
            text += f"; {self.dropped_otherwise} are zero on one side alone"
        elif self.units is not None and "float" in self.dtype:
            text += f", {self.units:.10g} units of the last digit of {self.dtype}"
        return text


@dataclass(frozen=True)
class Rounding:
    """Says how far both sides are from a result in float64, and whether that explains that they differ."""

    explained: bool | None  # None: not judged
    a_error: float  # the largest distance of an element
    b_error: float
    allowed: float  # the largest b_error that rounding explains

    def __str__(self) -> str:
        errors = f"beside the same step in float64, a is off by {self.a_error:.2g}, b by {self.b_error:.2g}"
        if self.explained is None:
            return f"rounding was not judged: {errors}, too far for a to be the same computation"
        verdict = "rounding explains it" if self.explained else "rounding does not explain it"
        return f"{verdict}: {errors}, with {self.allowed:.2g} allowed"


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether dtype, shape and all bits agree, the signs of zeros included."""
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(_bits(a), _bits(b))


def difference(a: Tensor, b: Tensor) -> Difference | None:
    """Returns how two tensors differ; None where they are the same bits. Where shapes differ, it says only
    that."""
    if same_bits(a, b):
        return None
    names = [str(t.dtype).removeprefix("torch.") for t in (a, b)]
    dtype = names[0] if a.dtype == b.dtype else " and ".join(names)
    if a.shape != b.shape:
        shapes = f"{dtype} of shapes {list(a.shape)} and {list(b.shape)}"
        return Difference(shapes, tuple(b.shape), a.numel(), a.numel(), (), 0.0, 0.0, None, 0)
    coarser = max((a, b), key=lambda t: torch.finfo(t.dtype).eps if t.is_floating_point() else 0).dtype
    x, y = a.to(coarser), b.to(coarser)
    differs = _bits(x) != _bits(y) if a.dtype == b.dtype else a.double() != b.double()
    finite = torch.isfinite(x) & torch.isfinite(y)
    units = _units(x, y) if coarser.is_floating_point else differs.double()
    far = torch.where(finite, units, torch.full_like(units, torch.inf)) if differs.any() else units
    far = torch.where(differs, far, torch.full_like(far, -1))
    place = int(far.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), a.shape))
    largest = far.flatten()[place].item()
    return Difference(
        dtype,
        tuple(a.shape),
        a.numel(),
        int(differs.sum()),
        index,
        float(a.flatten()[place]),
        float(b.flatten()[place]),
        max(largest, 0.0) if largest < torch.inf else None,
        int(((x == 0) != (y == 0)).sum()),
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()])


def _units(x: Tensor, y: Tensor) -> Tensor:
    """Returns how many units in the last place x and y are apart, float64 of their shape; zeros of two signs:
    0."""
    a, b = _ordered(x), _ordered(y)
    apart = a.double().abs() + b.double().abs()  # where the signs differ an int64 may not hold it
    return torch.where((a < 0) == (b < 0), (a - b).abs().double(), apart)


def _ordered(x: Tensor) -> Tensor:
    """Returns int64 in the order of the numbers in x: neighbours are one apart, both zeros are 0."""
    bits = _bits(x).long()
    lowest = -(1 << (8 * x.element_size() - 1))
    return torch.where(bits < 0, lowest - bits, bits)
