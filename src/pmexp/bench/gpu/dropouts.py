"""Lists what is compared for bandwidth: each way to drop, with the bytes that it must move."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pmexp.bench.checks import check
from pmexp.bench.contenders import BASELINE, Contender, contenders
from pmexp.bench.gpu.bench import Bench
from pmexp.packed_dropout import packed_dropout

P = 0.1
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
PACKED, TORCH_MASKS, SEEDED, NATIVE = "packed", "packed, rng=torch", "seeded", "native_dropout"


@dataclass(frozen=True)
class TimedDropout:
    """A contender. Forward and backward each read and write every element, and write or read its mask."""

    contender: Contender
    mask_bytes: float  # an element
    within: Callable[[], AbstractContextManager[object]] = nullcontext  # what its calls are made in

    @property
    def name(self) -> str:
        return self.contender.name

    def moved(self, x: Tensor) -> float:
        """Bytes that forward has to move for `x`, and backward as well."""
        return x.numel() * (2 * x.element_size() + self.mask_bytes)


def dropouts() -> list[TimedDropout]:
    """Returns the contenders, the baseline first."""
    known = {contender.name: contender for contender in contenders(P)}
    packed = known["pm-drop-1bit"]
    as_torch = replace(packed, name=TORCH_MASKS, drop=partial(packed_dropout, p=P, rng="torch"))
    return [
        TimedDropout(known[BASELINE], 1.0),
        TimedDropout(replace(known["byte-mask"], name=NATIVE), 1.0),
        TimedDropout(replace(packed, name=PACKED), 1 / 8),
        TimedDropout(as_torch, 1 / 8),
        TimedDropout(replace(known["seed-only"], name=SEEDED), 0.0),
    ]


def tensors(numel: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """x, which needs a gradient and has no zeros, and a gradient of its result."""
    generator = torch.Generator(device).manual_seed(0)
    x, grad = (torch.randn(numel, generator=generator, device=device).to(dtype) for _ in range(2))
    return x.masked_fill_(x == 0, 1.0).requires_grad_(), grad


def checked(
    bench: Bench, x: Tensor, grad: Tensor, dtype: str, among: Sequence[TimedDropout] | None = None
) -> list[TimedDropout]:
    """The dropouts that are right on `x` and `grad`; the others are named, and have no figure."""
    right = []
    for dropout in among or dropouts():
        with bench.part(f"{dropout.name}, {x.numel():,} elements in {dtype}"), dropout.within():
            check(dropout.contender, x, grad, P)
            right.append(dropout)
    names = "; ".join(dropout.name for dropout in right)
    what = "results and gradients are those of one mask of the rate, to the bit"
    bench.check(f"{x.numel():,} elements in {dtype}: {what}: {names}", bool(right), "no dropout is right")
    return right
