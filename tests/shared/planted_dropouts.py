"""Dropouts of somebody else, for the certificate: nn.Dropout's masks, and a fault in each but the first."""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

TINY = 2.0**-20


class Right(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        keep = torch.empty_like(input).bernoulli_(1 - self.p).div_(1 - self.p)
        return input * keep


class Scaled(Right):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * (1 + TINY)


class OneMore(Right):
    """Drops one element more, from its third call in training on: a layer of a ViT has two a step."""

    calls = 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += self.training
        y = super().forward(input)
        if self.calls < 3 or not self.training:
            return y
        others = torch.ones_like(y).flatten()
        others[int(y.flatten().abs().argmax())] = 0
        return y * others.view_as(y)


class WrongBackward(Right):
    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = _Scale.apply(super().forward(input))  # type: ignore[no-untyped-call]
        return y


class Constant(Right):
    """A model of these has nothing to learn from."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 0


class Failing(Right):
    def forward(self, input: Tensor) -> Tensor:
        raise RuntimeError("no such mask\nsecond line")


class Hungry(Right):
    def forward(self, input: Tensor) -> Tensor:
        return torch.empty(2**60, dtype=torch.uint8)  # more than any machine has


class HungryInPython(Right):
    def forward(self, input: Tensor) -> Tensor:
        return torch.tensor(bytearray(2**60))


class HungryOnCuda(Right):
    """Raises what torch raises where a card is full, which has to be had for the real one."""

    def forward(self, input: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")


class Leaving(Right):
    def forward(self, input: Tensor) -> Tensor:
        sys.exit(0)  # the exit code of equal trainings


class OtherArguments(nn.Dropout):
    def __init__(self, rate: float) -> None:
        super().__init__(rate)


class NoDropout(nn.Module):
    pass


class _Scale(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (1 + TINY)
