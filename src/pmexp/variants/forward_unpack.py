"""Defines forward_unpack_dropout(), an ablation that packs its mask and unpacks it in forward already.

It does all the work of packed_dropout and has none of its saving, which shows what late unpacking is worth.
"""

from typing import Any

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.mask_application import apply_bits
from pmexp.packed_dropout.nested import apply_to_values
from pmexp.packed_dropout.options import check_options, dropped_without_mask, needs_graph, needs_mask
from pmexp.packed_dropout.seeds import new_seed
from pmexp.packed_dropout.transforms import TransformableFunction, remember_mask


def forward_unpack_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Drops as torch.nn.functional.dropout does, saving a Boolean mask for backward, a byte an element.

    Draws the masks of packed_dropout(rng="philox"), with equal outputs and gradients, bit for bit.

    Args and Raises: as in packed_dropout.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(forward_unpack_dropout, (input,), input, p, training, inplace)
    if input.is_nested:
        return apply_to_values(forward_unpack_dropout, input, p, training, inplace)
    check_options(p)
    if not needs_mask(input, p, training):
        return dropped_without_mask(input, p, training, inplace)
    seed = new_seed(input.device)
    if not needs_graph(input):
        y: Tensor = ops.operators_for(input).packed_dropout(input, seed, p, 1)[0]
        return input.copy_(y) if inplace else y
    return _UnpackedMask.dropped(input, seed, p, inplace=inplace)


class ForwardUnpackDropout(nn.Dropout):
    """nn.Dropout that drops by forward_unpack_dropout."""

    dropout_may_be_replaced = True  # packed_dropout/exchange.py reads it

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training, self.inplace)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """This module's dropout with the signature of F.dropout, for functional call sites."""
        return forward_unpack_dropout(input, p, training, inplace)


class _UnpackedMask(TransformableFunction):
    @staticmethod
    def forward(x: Tensor, seed: Tensor, p: float, inplace: bool) -> tuple[Tensor, Tensor]:
        y, packed = ops.operators_for(x).packed_dropout(x, seed, p, 1)
        return x.copy_(y) if inplace else y, ops.unpack_bits(packed, x.shape, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, ctx.p, _ = inputs
        remember_mask(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        (keep,) = ctx.saved_tensors
        return apply_bits(grad, keep, ctx.p, 1, keep=keep), None, None, None

    @staticmethod
    def tangent(ctx: Any, x: Tensor, *_: None) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return apply_bits(x, keep, ctx.p, 1, keep=keep), None
