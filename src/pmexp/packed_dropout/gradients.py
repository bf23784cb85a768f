"""Registers the gradients of the operators, for graphs that call them without the functions around.

An exported program holds the operators and not autograd.Functions; with these it trains. Importing this
module registers them.
"""

from typing import Any

import torch
from torch import Tensor

from pmexp.packed_dropout import ops


def _packed_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *_, ctx.p, ctx.bits = inputs
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _apply_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, packed, ctx.p, ctx.bits = inputs
    ctx.save_for_backward(packed)


def _masked_gradient(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return ops.apply_packed_mask(grad, *ctx.saved_tensors, ctx.p, ctx.bits), None, None, None


def _seeded_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, seed, ctx.p = inputs
    ctx.save_for_backward(seed)


def _seeded_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return ops.seeded_dropout(grad, *ctx.saved_tensors, ctx.p), None, None


def _bias_gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_input = ops.apply_packed_mask(grad, *ctx.saved_tensors, ctx.p, ctx.bits)
    grad_bias = grad_input.sum_to_size(grad.shape[-1:]) if ctx.needs_input_grad[1] else None
    return grad_input, grad_bias, grad, None, None, None


for _name, _gradient, _context in (
    ("packed_dropout", _masked_gradient, _packed_context),
    ("apply_packed_mask", _masked_gradient, _apply_context),
    ("seeded_dropout", _seeded_gradient, _seeded_context),
    ("bias_dropout_add", _bias_gradient, _packed_context),
):
    torch.library.register_autograd(f"pmexp::{_name}", _gradient, setup_context=_context)
