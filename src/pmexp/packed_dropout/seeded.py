"""seeded_dropout(): stores no mask at all and draws it again in backward. The rival of packed masks."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.functional import (
    check_options,
    dropped_without_mask,
    needs_graph,
    needs_mask,
    new_seed,
    output_of,
)


def seeded_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout like torch.nn.functional.dropout that saves the seed of its mask for backward, 8 bytes.

    Draws the masks of packed_dropout(rng="philox"), bit for bit. Backward pays for a second draw.

    Args and Raises: as in packed_dropout.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(seeded_dropout, (input,), input, p, training, inplace)
    check_options(p)
    if not needs_mask(input, p, training):
        return dropped_without_mask(input, p, training, inplace)
    seed = new_seed(input.device)
    if not needs_graph(input):
        y: Tensor = ops.operators_for(input).seeded_dropout(input, seed, p)
        return input.copy_(y) if inplace else y
    return cast(Tensor, _SeededMask.apply(input, seed, p, inplace))


class SeededDropout(nn.Dropout):
    """nn.Dropout by seeded_dropout."""

    dropout_may_be_replaced = True  # see exchange.py

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training, self.inplace)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """This module's dropout with the signature of F.dropout, for functional call sites."""
        return seeded_dropout(input, p, training, inplace)


class _SeededMask(Function):
    """x * keep / (1 - p) by the mask of a seed: linear in x and its own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, p: float, inplace: bool) -> Tensor:
        ctx.save_for_backward(seed)
        ctx.p = p
        return output_of(ctx, x, ops.operators_for(x).seeded_dropout(x, seed, p), inplace)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (seed,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _SeededMask.apply(grad, seed, ctx.p, False), None, None, None
        return ops.operators_for(grad).seeded_dropout(grad, seed, ctx.p), None, None, None
