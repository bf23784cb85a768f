"""A dropout of one's own: two neighbours share a draw, so that backward needs half a mask."""

from typing import Any

import torch
from torch import Tensor, nn


class PairedDropout(nn.Dropout):
    """Drops elements in pairs, and keeps a byte a pair.

    `drop` has the arguments of torch.nn.functional.dropout, so that functional dropout is replaced as well.
    """

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return input
        return _Paired.apply(input, p)


class _Paired(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        keep = torch.rand((x.numel() + 1) // 2, device=x.device) >= p
        ctx.save_for_backward(keep)
        ctx.p = p
        return _kept(x, keep, p)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return _kept(gradients[0], keep, ctx.p), None


def _kept(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """x / (1 - p) where its pair is kept, else 0; p = 1 drops all."""
    mask = keep.repeat_interleave(2)[: x.numel()].view(x.shape)
    return x * mask * (1.0 / (1.0 - p) if p < 1.0 else 0.0)
