"""Lists what is compared: every way to drop, as one callable and the bytes that it promises to save."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from pmexp.errors import UserError, first_line
from pmexp.packed_dropout import pack_saved_masks, packed_dropout, reference
from pmexp.variants.seeded import seeded_dropout

BASELINE = "nn.Dropout"
COMPILED = "compiled"
NO_CACHE = "-no-cache"
FORWARD, BACKWARD, BOTH, SECOND_BACKWARD = PHASES = ("forward", "backward", "both", "second-backward")

_REFERENCE_LARGEST = 4_000_000  # elements; above them plain torch would take most of a benchmark's time


@dataclass(frozen=True)
class Contender:
    """`drop` maps x to dropped x through autograd, with a new mask at each call.

    `saved_bytes` is what one call on x promises to save for backward, in bytes.
    """

    name: str
    drop: Callable[[Tensor], Tensor]
    saved_bytes: Callable[[Tensor], int]
    phases: tuple[str, ...] = PHASES
    largest: int | None = None  # elements it is measured at; None: any number


def contenders(p: float) -> list[Contender]:
    """All contenders at the dropout probability `p`; the baseline first.

    cache_unpacked acts on graphs that are kept alone, so the contenders without it have one phase. A compiled
    backward cannot be taken again: it gives its buffers away.
    """
    one_bit = partial(_packed_bytes, 1)
    made = [
        Contender(BASELINE, nn.Dropout(p), _saved_by_torch),
        Contender(COMPILED, partial(_compiled, p=p), Tensor.numel, phases=(FORWARD, BACKWARD, BOTH)),
        Contender("byte-mask", partial(_byte_mask, p=p), Tensor.numel),
        Contender("reference", partial(_naive_packed, p=p), one_bit, largest=_REFERENCE_LARGEST),
        Contender("hooks", partial(_byte_mask_under_hooks, p=p), one_bit),
        Contender("seed-only", partial(seeded_dropout, p=p), _one_seed),
    ]
    for bits in (1, 2, 4):
        drop = partial(packed_dropout, p=p, bits=bits)
        uncached = partial(drop, cache_unpacked=False)
        saved = partial(_packed_bytes, bits)
        made.append(Contender(f"pm-drop-{bits}bit", drop, saved))
        made.append(Contender(f"pm-drop-{bits}bit{NO_CACHE}", uncached, saved, phases=(SECOND_BACKWARD,)))
    return made


def _saved_by_torch(x: Tensor) -> int:
    """Bytes that nn.Dropout saves: its noise in x's dtype on the CPU, a byte mask elsewhere."""
    return x.numel() * (x.element_size() if x.device.type == "cpu" else 1)


def _one_seed(x: Tensor) -> int:
    return 8


def _packed_bytes(bits: int, x: Tensor) -> int:
    return reference.packed_bytes(x.numel(), bits)


@cache
def _compiled_by_torch(p: float) -> Callable[[Tensor], Tensor]:
    """Returns stock dropout as torch.compile makes it: once for a dtype and a number of dimensions."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = 64  # above it nothing would be compiled
    compiled: Callable[[Tensor], Tensor] = torch.compile(
        partial(functional.dropout, p=p), dynamic=True, fullgraph=True
    )
    return compiled


def _compiled(x: Tensor, p: float) -> Tensor:
    dropout = _compiled_by_torch(p)
    try:
        return dropout(x)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise UserError(
            f"contenders: {COMPILED} cannot be had, since torch.compile fails here ({first_line(error)}); "
            "install a C++ compiler (Debian: apt-get install g++), or name other contenders"
        ) from None


def _byte_mask(x: Tensor, p: float) -> Tensor:
    return torch.native_dropout(x, p, True)[0]


def _byte_mask_under_hooks(x: Tensor, p: float) -> Tensor:
    with pack_saved_masks():
        return _byte_mask(x, p)


def _naive_packed(x: Tensor, p: float) -> Tensor:
    return cast(Tensor, _NaivePacked.apply(x, p))


class _NaivePacked(Function):
    """The method in plain torch: what packing costs without kernels of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        seed = torch.randint(0, 2**62, (1,), dtype=torch.int64, device=x.device)
        keep = reference.draw_mask(x.shape, seed, p)
        ctx.save_for_backward(reference.pack_bits(keep))
        ctx.p = p
        return reference.apply_mask(x, keep, p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        return reference.apply_mask(grad, reference.unpack_bits(packed, grad.shape), ctx.p), None
