"""Keeps other binary masks at one bit an element: a gate that is given, and the one that ReLU is."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.nested import apply_to_values
from pmexp.packed_dropout.transforms import TransformableFunction, remember, remember_mask, transforms_active


def packed_gate(x: Tensor, mask: Tensor) -> Tensor:
    """Returns x * mask, saving the mask's bits for backward: ceil(mask.numel() / 8) bytes.

    It is the product: an infinity or NaN behind a False becomes NaN, and a negative number -0.0.

    Args:
        x: any shape, layout and dtype. It alone has a gradient, grad * mask, which is differentiable.
        mask: Boolean, broadcastable to the shape of x. Its bits are of the shape it has here, so give a
            mask of heads or of padding as it is, not expanded.

    Raises:
        TypeError: `mask` is not Boolean.
        ValueError: it does not broadcast to the shape of x, or is on another device.
    """
    if has_torch_function((x, mask)):
        return handle_torch_function(packed_gate, (x, mask), x, mask)
    if mask.dtype is not torch.bool:
        raise TypeError(f"mask: packed_gate takes a Boolean mask, got {mask.dtype}")
    if not _broadcasts(mask.shape, x.shape):
        raise ValueError(f"mask: shape {tuple(mask.shape)} does not broadcast to {tuple(x.shape)}, that of x")
    if mask.device != x.device:
        raise ValueError(f"mask: is on {mask.device}, x on {x.device}; packed_gate takes both on one device")
    if not _needs_gradient(x):
        return x * mask
    return cast(Tensor, _Gate.run(x, ops.operators_for(mask).pack_bits(mask, 1), *mask.shape))


def packed_relu(x: Tensor, inplace: bool = False) -> Tensor:
    """Returns torch.nn.functional.relu(x), saving ceil(numel / 8) bytes for backward instead of the output.

    Output and gradient are F.relu's bit for bit. Memory is saved where nothing else keeps the output: a
    linear layer or a convolution behind it does, dropout, a sum or a pooling by mean does not.

    Args:
        x: any shape and layout, floating-point.
        inplace: writes the result into `x`.

    Raises:
        TypeError: `x` is not a floating tensor.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(packed_relu, (x,), x, inplace)
    if x.is_nested:
        return apply_to_values(packed_relu, x, inplace)
    if not x.is_floating_point():
        raise TypeError(f"packed_relu takes a floating-point tensor, got {x.dtype}")
    if not _needs_gradient(x):
        return torch.relu_(x) if inplace else torch.relu(x)
    return _ReLU.dropped(x, inplace=inplace)


class PackedReLU(nn.ReLU):
    """nn.ReLU that computes by `packed_relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return packed_relu(input, self.inplace)


class _Gate(TransformableFunction):
    """x * mask from packed bits: linear in x and its own derivative."""

    @staticmethod
    def forward(x: Tensor, packed: Tensor, *shape: int) -> Tensor:
        return _multiply(x, packed, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, packed, *shape = inputs
        ctx.shape = torch.Size(shape)
        remember(ctx, packed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        if _differentiated():
            return _Gate.run(grad, packed, *ctx.shape), None, *(None for _ in ctx.shape)
        return _multiply(grad, packed, ctx.shape), None, *(None for _ in ctx.shape)

    @staticmethod
    def tangent(ctx: Any, x: Tensor, *_: None) -> Tensor:
        return cast(Tensor, _Gate.run(x, *ctx.saved_tensors, *ctx.shape))


class _ReLU(TransformableFunction):
    @staticmethod
    def forward(x: Tensor, inplace: bool) -> tuple[Tensor, Tensor]:
        y = torch.relu_(x) if inplace else torch.relu(x)
        signs = y != 0  # NaN counts as set, since torch lets its gradient pass
        return y, ops.operators_for(signs).pack_bits(signs, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        remember_mask(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, None]:
        if grad is None:
            return None, None
        select = _Select.run if _differentiated() else _select
        return select(grad, *ctx.saved_tensors), None

    @staticmethod
    def tangent(ctx: Any, x: Tensor, _: None) -> tuple[Tensor, None]:
        return _Select.run(x, *ctx.saved_tensors), None


class _Select(TransformableFunction):
    """x where a bit is set, else +0.0: linear in x and its own derivative."""

    @staticmethod
    def forward(x: Tensor, packed: Tensor) -> Tensor:
        return _select(x, packed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        remember(ctx, inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Select.run(grad, *ctx.saved_tensors), None

    @staticmethod
    def tangent(ctx: Any, x: Tensor, _: None) -> Tensor:
        return cast(Tensor, _Select.run(x, *ctx.saved_tensors))


def _multiply(x: Tensor, packed: Tensor, shape: Sequence[int]) -> Tensor:
    if x.shape == shape and x.is_floating_point():
        product: Tensor = ops.operators_for(x).apply_packed_mask(x, packed, 0.0, 1)  # 1 / (1 - 0) is 1
        return product
    mask: Tensor = ops.operators_for(packed).unpack_bits(packed, shape, 1)
    return x * mask


def _select(x: Tensor, packed: Tensor) -> Tensor:
    """Returns x where a bit is set, by ReLU's own backward, to which True is an output above 0."""
    mask = ops.operators_for(packed).unpack_bits(packed, x.shape, 1)
    if transforms_active():  # vmap has no rule for threshold_backward
        return torch.where(mask, x, 0.0)
    selected = torch.empty_like(x)
    torch.ops.aten.threshold_backward.grad_input(x, mask, 0, grad_input=selected)
    return selected


def _broadcasts(shape: Sequence[int], target: Sequence[int]) -> bool:
    behind = target[len(target) - len(shape) :]
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(shape, behind, strict=True))


def _differentiated() -> bool:
    """Whether a backward is itself differentiated: only then is its node worth its cost."""
    return torch.is_grad_enabled() or transforms_active()


def _needs_gradient(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()
