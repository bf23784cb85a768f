"""forward_unpack_dropout(): packs its mask and unpacks it in forward already. An ablation.

It does all the work of packed_dropout and has none of its saving: what late unpacking is worth.
"""

from typing import Any, cast

from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.functional import (
    apply_bits,
    check_options,
    dropped_without_mask,
    needs_graph,
    needs_mask,
    new_seed,
    output_of,
)


def forward_unpack_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Dropout like torch.nn.functional.dropout that saves a Boolean mask for backward, a byte an element.

    Draws the masks of packed_dropout(rng="philox"), with equal outputs and gradients, bit for bit.

    Args and Raises: as in packed_dropout.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(forward_unpack_dropout, (input,), input, p, training, inplace)
    check_options(p)
    if not needs_mask(input, p, training):
        return dropped_without_mask(input, p, training, inplace)
    seed = new_seed(input.device)
    if not needs_graph(input):
        y: Tensor = ops.operators_for(input).packed_dropout(input, seed, p, 1)[0]
        return input.copy_(y) if inplace else y
    return cast(Tensor, _UnpackedMask.apply(input, seed, p, inplace))


class ForwardUnpackDropout(nn.Dropout):
    """nn.Dropout by forward_unpack_dropout."""

    dropout_may_be_replaced = True  # see exchange.py

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training, self.inplace)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """This module's dropout with the signature of F.dropout, for functional call sites."""
        return forward_unpack_dropout(input, p, training, inplace)


class _UnpackedMask(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, p: float, inplace: bool) -> Tensor:
        y, packed = ops.operators_for(x).packed_dropout(x, seed, p, 1)
        ctx.save_for_backward(ops.unpack_bits(packed, x.shape, 1))
        ctx.p = p
        return output_of(ctx, x, y, inplace)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (keep,) = ctx.saved_tensors
        return apply_bits(grad, keep, ctx.p, 1, keep=keep), None, None, None
