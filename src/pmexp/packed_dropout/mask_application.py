"""Applies a mask that is drawn already, in a backward or to a tangent."""

from typing import Any, cast

import torch
from torch import Tensor

from pmexp.packed_dropout import cuda_mapping, native, ops, reference
from pmexp.packed_dropout.options import Rng
from pmexp.packed_dropout.transforms import TransformableFunction, remember, transforms_active


def native_scale(x: Tensor, p: float, rng: Rng, forward: bool = False) -> float | None:
    """What nn.Dropout on the device of x multiplies kept elements with; None for reference.kept_scale."""
    if rng != "torch":
        return None
    if x.device.type == "cpu":
        return reference.stock_cpu_scale(p, x.dtype)
    return None if forward else cuda_mapping.backward_scale(p)


def apply_bits(
    x: Tensor, packed: Tensor, p: float, bits: int, scale: float | None = None, keep: Tensor | None = None
) -> Tensor:
    """x * keep / (1 - p) in a backward, by the mask in `packed`, or `keep` where it is unpacked already.

    scale: see native_scale.
    """
    # Grad mode is on only under create_graph=True; else a node would be made for nothing.
    if torch.is_grad_enabled() or transforms_active():
        return cast(Tensor, ApplyMask.run(x, packed, keep, p, bits, scale))
    return _apply_mask(x, packed, keep, p, bits, scale)


class ApplyMask(TransformableFunction):
    """x * keep / (1 - p) by a mask already drawn: linear in x and its own derivative."""

    @staticmethod
    def forward(
        x: Tensor, packed: Tensor, keep: Tensor | None, p: float, bits: int, scale: float | None
    ) -> Tensor:
        return _apply_mask(x, packed, keep, p, bits, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, packed, keep, *ctx.options = inputs
        remember(ctx, packed, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ApplyMask.run(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None, None

    @staticmethod
    def tangent(ctx: Any, x: Tensor, *_: None) -> Tensor:
        return cast(Tensor, ApplyMask.run(x, *ctx.saved_tensors, *ctx.options))


def _apply_mask(
    x: Tensor, packed: Tensor, keep: Tensor | None, p: float, bits: int, scale: float | None
) -> Tensor:
    """x * keep / (1 - p), by the Boolean mask where there is one."""
    if keep is not None:
        return reference.scaled(x, keep, reference.kept_scale(p, x.dtype) if scale is None else scale)
    if scale is None and (calls := native.calls_for(x)):
        return cast(Tensor, calls.apply_mask(x, packed, p, bits))
    operators = ops.operators_for(x)
    if scale is None:
        return cast(Tensor, operators.apply_packed_mask(x, packed, p, bits))
    return cast(Tensor, operators.scale_packed_mask(x, packed, scale, bits))
