"""torch's own account of its CUDA draw, for the interpreter's process alone. Older torches have none."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._inductor.runtime.triton_helpers import rand_eager_kernel


@triton.jit
def _rand_eager_kernel(out, place, seed, call, numel, VECTOR: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < numel
    drawn = rand_eager_kernel(
        seed, tl.load(call + at, mask=inside, other=0), tl.load(place + at, mask=inside, other=0), VECTOR
    )
    tl.store(out + at, drawn, mask=inside)


def rand_eager(place: Tensor, call: Tensor, seed: int, vector: int) -> Tensor:
    """Uniform numbers for places in a round and first calls of rounds."""
    out = torch.empty(place.numel(), dtype=torch.float32)
    grid = (triton.cdiv(place.numel(), 256),)
    _rand_eager_kernel[grid](out, place, seed, call, place.numel(), vector, 256)
    return out
