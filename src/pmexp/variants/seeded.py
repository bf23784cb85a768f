"""Defines seeded_dropout(), the rival that stores no mask at all and draws it again in backward."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.nested import apply_to_values
from pmexp.packed_dropout.options import check_options, dropped_without_mask, needs_graph, needs_mask
from pmexp.packed_dropout.seeds import new_seed, plain_seed, seed_as_tensor
from pmexp.packed_dropout.transforms import TransformableFunction, remember, transforms_active


def seeded_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drops as torch.nn.functional.dropout does, saving for backward the seed of the mask, 8 bytes.

    Draws the masks of packed_dropout(rng="philox"), bit for bit. Backward pays for a second draw.

    Args and Raises: as in packed_dropout.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(seeded_dropout, (input,), input, p, training, inplace)
    if input.is_nested:
        return apply_to_values(seeded_dropout, input, p, training, inplace)
    check_options(p)
    if not needs_mask(input, p, training):
        return dropped_without_mask(input, p, training, inplace)
    backend = ops.backend_of_plain(input)
    if backend is not None:
        return cast(Tensor, _apply_seeded(input, plain_seed(input), p, backend, inplace))
    seed = new_seed(input.device)
    if not needs_graph(input):
        y: Tensor = ops.operators_for(input).seeded_dropout(input, seed, p)
        return input.copy_(y) if inplace else y
    return _SeededMask.dropped(input, seed, p, inplace=inplace)


class SeededDropout(nn.Dropout):
    """nn.Dropout that drops by seeded_dropout."""

    dropout_may_be_replaced = True  # packed_dropout/exchange.py reads it

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training, self.inplace)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """This module's dropout with the signature of F.dropout, for functional call sites."""
        return seeded_dropout(input, p, training, inplace)


class _SeededDropout(Function):
    """Drops plain tensors in eager mode, without what transforms need."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor | int, p: float, backend: Any, inplace: bool) -> Tensor:
        y: Tensor = backend.seeded_dropout(x, seed, p)
        ctx.p = p
        # It is saved as a tensor, since a checkpoint may put another one in its place.
        ctx.save_for_backward(seed_as_tensor(seed))
        if not inplace:
            return y
        ctx.mark_dirty(x)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gradient(ctx, grad), None, None, None, None


_apply_seeded = super(Function, _SeededDropout).apply  # see TransformableFunction.run


class _SeededMask(TransformableFunction):
    """x * keep / (1 - p) by the mask of a seed: linear in x and its own derivative."""

    @staticmethod
    def forward(x: Tensor, seed: Tensor, p: float, inplace: bool) -> Tensor:
        y: Tensor = ops.operators_for(x).seeded_dropout(x, seed, p)
        return x.copy_(y) if inplace else y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, seed, ctx.p, _ = inputs
        remember(ctx, seed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gradient(ctx, grad), None, None, None

    @staticmethod
    def tangent(ctx: Any, x: Tensor, *_: None) -> Tensor:
        return cast(Tensor, _SeededMask.run(x, *ctx.saved_tensors, ctx.p, False))


def _gradient(ctx: Any, grad: Tensor) -> Tensor:
    (seed,) = ctx.saved_tensors
    if torch.is_grad_enabled() or transforms_active():
        return cast(Tensor, _SeededMask.run(grad, seed, ctx.p, False))
    return cast(Tensor, ops.operators_for(grad, seed).seeded_dropout(grad, seed, ctx.p))
