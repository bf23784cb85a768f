"""Defines packed_bias_dropout_add(), the end of a transformer's sub-layer in one pass over memory."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.functional import packed_dropout
from pmexp.packed_dropout.mask_application import apply_bits
from pmexp.packed_dropout.options import check_options, dropped_without_mask, needs_mask
from pmexp.packed_dropout.seeds import new_seed
from pmexp.packed_dropout.transforms import TransformableFunction, remember_mask


def packed_bias_dropout_add(
    input: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    bits: int = 1,
) -> Tensor:
    """Returns residual + dropout(input + bias), saving only ceil(numel * bits / 8) bytes for backward.

    Rounds to the dtype of `input` after each step, the sum, the product with 1 / (1 - p) and the second sum:
    bit for bit ``residual + packed_dropout(input + bias, p)`` with the same mask.

    Args:
        input: float16, bfloat16, float32 or float64, of any shape with at least one dimension.
        bias: (input.shape[-1],) of the same dtype, or None.
        residual: shape and dtype of `input`.
        p, training, bits: as in packed_dropout.

    Raises:
        ValueError: an option is out of range, or shapes or dtypes disagree.
        TypeError: `input` is not a floating tensor.
    """
    tensors = (input, residual) if bias is None else (input, bias, residual)
    if has_torch_function(tensors):
        return handle_torch_function(
            packed_bias_dropout_add, tensors, input, bias, residual, p, training, bits=bits
        )
    if input.is_nested:
        return residual + packed_dropout(input if bias is None else input + bias, p, training, bits=bits)
    check_options(p, bits)
    if not needs_mask(input, p, training):
        shifted = input if bias is None else input + bias
        return residual + dropped_without_mask(shifted, p, training)
    seed = new_seed(input.device)
    if torch.compiler._is_exporting_flag:  # is_exporting() is True in any compiled graph before torch 2.13
        return cast(Tensor, ops.bias_dropout_add(input, bias, residual, seed, p, bits)[0])
    return cast(Tensor, _BiasDropoutAdd.run(input, bias, residual, seed, p, bits)[0])


class _BiasDropoutAdd(TransformableFunction):
    @staticmethod
    def forward(
        x: Tensor, bias: Tensor | None, residual: Tensor, seed: Tensor, p: float, bits: int
    ) -> tuple[Tensor, Tensor]:
        operators = ops.operators_for(x, bias, residual)
        return cast(tuple[Tensor, Tensor], operators.bias_dropout_add(x, bias, residual, seed, p, bits))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *_, ctx.p, ctx.bits = inputs
        ctx.shape = inputs[0].shape
        remember_mask(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None, None
        (packed,) = ctx.saved_tensors
        for_input, for_bias, for_residual = ctx.needs_input_grad[:3]
        grad_input = apply_bits(grad, packed, ctx.p, ctx.bits) if for_input or for_bias else None
        grad_bias = None
        if for_bias and grad_input is not None:
            grad_bias = grad_input.sum_to_size(grad.shape[-1:])
        return grad_input if for_input else None, grad_bias, grad if for_residual else None, None, None, None

    @staticmethod
    def tangent(
        ctx: Any, x: Tensor | None, bias: Tensor | None, residual: Tensor | None, *_: None
    ) -> tuple[Tensor, None]:
        (packed,) = ctx.saved_tensors
        shifted = x if bias is None else bias.expand(ctx.shape) if x is None else x + bias
        dropped = None if shifted is None else apply_bits(shifted, packed, ctx.p, ctx.bits)
        parts = [part for part in (dropped, residual) if part is not None]
        return sum(parts[1:], parts[0]), None
