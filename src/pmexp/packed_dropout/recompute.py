"""Has attention keep bits where it kept the dropped probabilities: softmax -> dropout -> matmul.

The product of dropped probabilities with the values saves the dropped probabilities for backward, as large
as the attention itself. They are the softmax's output, which is saved anyhow, times the mask: with the bits
at hand backward makes them again. (Sub-layer dropout recomputation of Tempo, Andoorveedu et al., NeurIPS
2022, from bits in place of bytes.)
"""

from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary

from pmexp.packed_dropout import native
from pmexp.packed_dropout.functional import draw, dropout_and_bits, packed_dropout
from pmexp.packed_dropout.mask_application import apply_bits, native_scale
from pmexp.packed_dropout.options import (
    Options,
    Rng,
    check_options,
    dropped_without_mask,
    needs_graph,
    needs_mask,
)
from pmexp.packed_dropout.partitioning import drop_by_bits
from pmexp.packed_dropout.reference import kept_scale
from pmexp.packed_dropout.seeds import seed_for
from pmexp.packed_dropout.transforms import TransformableFunction, remember


def softmax_dropout_matmul(
    scores: Tensor,
    value: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    bits: int = 1,
    rng: Rng = "philox",
) -> Tensor:
    """Returns dropout(softmax(scores)) @ value, saving the softmax's output, `value` and the mask's bits.

    The softmax is computed in float32 where scores are narrower, as in transformers' eager attention.

    Args:
        scores: (..., queries, keys), scaled and masked.
        value: (..., keys, head size); with the leading dimensions of `scores`, else nothing is recomputed.
        p, training, bits, rng: as in packed_dropout.

    Raises:
        ValueError: an option is out of range.
    """
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return dropped_matmul(torch.softmax(scores, -1, wide), value, p, training, bits=bits, rng=rng)


def dropped_matmul(
    probs: Tensor, value: Tensor, p: float = 0.5, training: bool = True, *, bits: int = 1, rng: Rng = "philox"
) -> Tensor:
    """Returns dropout(probs.to(value.dtype)) @ value, saving `probs`, `value` and the mask's bits.

    Equal to the three steps one by one in value and gradients, bit for bit with the same mask, under autocast
    as well.

    Args:
        probs: (..., m, k); saved as it is, which costs nothing where it is saved already (by its softmax).
        value: (..., k, n); with the leading dimensions of `probs`, else nothing is recomputed.
        p, training, bits, rng: as in packed_dropout.

    Raises:
        ValueError: an option is out of range.
    """
    dropped, packed = packed_dropout_and_bits(probs.to(value.dtype), p, training, bits=bits, rng=rng)
    if packed is None or not multiplies_alike(dropped, value):
        return torch.matmul(dropped, value)
    return matmul_of_dropped(probs, value, dropped, packed, p, bits, rng)


def packed_dropout_and_bits(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    bits: int = 1,
    cache_unpacked: bool = True,
    rng: Rng = "philox",
    flip_rate: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Returns packed_dropout(), and the packed mask that its backward uses or None where it needs none."""
    if has_torch_function_unary(input):
        options: dict[str, Any]
        options = {"bits": bits, "cache_unpacked": cache_unpacked, "rng": rng, "flip_rate": flip_rate}
        return handle_torch_function(packed_dropout_and_bits, (input,), input, p, training, **options)
    if (
        (training and rng == "philox" and not flip_rate and type(p) is float)
        and (calls := native.calls_for(input))
        and (dropped := calls.dropout_and_bits(input, p, bits, cache_unpacked))[0] is not None
    ):
        return cast(tuple[Tensor, Tensor], dropped)
    if input.is_nested:  # products of nested tensors recompute nothing
        options = {"bits": bits, "cache_unpacked": cache_unpacked, "rng": rng, "flip_rate": flip_rate}
        return packed_dropout(input, p, training, **options), None
    check_options(p, bits, rng, flip_rate)
    if not needs_mask(input, p, training):
        return dropped_without_mask(input, p, training), None
    chosen = Options(p, bits, cache_unpacked, rng, flip_rate)
    seed = seed_for(input, rng)
    if not needs_graph(input, flip_rate):  # then nothing is to be recomputed either
        return draw(input, seed, chosen)[0], None
    if torch.compiler.is_compiling() and not flip_rate:
        _, packed = draw(input.detach(), seed, chosen)
        return cast(Tensor, _DropByBits.run(input, packed, p, bits, rng)), packed
    return dropout_and_bits(input, seed, chosen)


def remade_dropout(
    input: Tensor, p: float, training: bool, inplace: Literal[False] = False, **options: Any
) -> Tensor:
    """packed_dropout() in a graph that is compiled: what it drops is made again in backward and not saved."""
    return packed_dropout_and_bits(input, p, training, **options)[0]


class _DropByBits(TransformableFunction):
    """x * keep / (1 - p) by a mask already drawn, which compiled code makes again in backward."""

    @staticmethod
    def forward(x: Tensor, packed: Tensor, p: float, bits: int, rng: Rng) -> Tensor:
        scale = native_scale(x, p, rng, forward=True)
        y: Tensor = drop_by_bits(x, packed, kept_scale(p, x.dtype) if scale is None else scale, bits)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, packed, *ctx.options = inputs
        remember(ctx, packed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,), (p, bits, rng) = ctx.saved_tensors, ctx.options
        return apply_bits(grad, packed, p, bits, native_scale(grad, p, rng)), None, None, None, None


def multiplies_alike(dropped: Tensor, value: Tensor) -> bool:
    """Whether dropped @ value takes both in one dtype and without broadcasting, as matmul_of_dropped does."""
    return (
        dropped.dim() >= 2
        and dropped.shape[:-2] == value.shape[:-2]
        and dtype_in_matmul(dropped) == dtype_in_matmul(value)
    )


def dtype_in_matmul(tensor: Tensor) -> torch.dtype:
    """The dtype that torch.matmul computes `tensor` in: autocast casts all floating dtypes but float64."""
    kind = tensor.device.type
    stays = tensor.dtype == torch.float64 or not tensor.is_floating_point()
    return tensor.dtype if stays or not torch.is_autocast_enabled(kind) else torch.get_autocast_dtype(kind)


def matmul_of_dropped(
    probs: Tensor, value: Tensor, dropped: Tensor, packed: Tensor, p: float, bits: int, rng: Rng
) -> Tensor:
    """dropped @ value, where `dropped` is dropout(probs.to(dropped.dtype)) by the mask in `packed`.

    Autocast casts both to its dtype, as for torch.matmul: the dropped probabilities once the mask is applied,
    in backward as well. Gradients go to `probs` and `value` as if `dropped` had been saved; it is not.
    """
    tensors = (probs, value, dropped, packed)
    if has_torch_function(tensors):
        return handle_torch_function(matmul_of_dropped, tensors, *tensors, p, bits, rng)
    value = value.to(dtype_in_matmul(value))
    return cast(Tensor, _MatmulOfDropped.run(probs, value, dropped.detach(), packed, p, bits, rng))


class _MatmulOfDropped(TransformableFunction):
    @staticmethod
    def forward(
        probs: Tensor, value: Tensor, dropped: Tensor, packed: Tensor, p: float, bits: int, rng: Rng
    ) -> Tensor:
        return torch.matmul(dropped.to(value.dtype), value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        probs, value, dropped, packed, *options = inputs
        ctx.options = dropped.dtype, *options
        remember(ctx, probs, value, packed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        probs, value, packed = ctx.saved_tensors
        dtype, p, bits, rng = ctx.options
        grad_probs = grad_value = None
        if ctx.needs_input_grad[1]:
            dropped = _dropped(probs, packed, value.dtype, *ctx.options)
            grad_value = torch.matmul(dropped.transpose(-2, -1), grad)
        if ctx.needs_input_grad[0]:
            grad_dropped = torch.matmul(grad, value.transpose(-2, -1)).to(dtype)
            scale = native_scale(grad_dropped, p, rng)
            grad_probs = apply_bits(grad_dropped, packed, p, bits, scale).to(probs.dtype)
        return grad_probs, grad_value, None, None, None, None, None

    @staticmethod
    def tangent(ctx: Any, by_probs: Tensor, by_value: Tensor, *_: Any) -> Tensor:
        probs, value, packed = ctx.saved_tensors
        dropped, by_dropped = (_dropped(t, packed, value.dtype, *ctx.options) for t in (probs, by_probs))
        return torch.matmul(by_dropped, value) + torch.matmul(dropped, by_value)


def _dropped(
    probs: Tensor, packed: Tensor, product: torch.dtype, dtype: torch.dtype, p: float, bits: int, rng: Rng
) -> Tensor:
    """dropout(probs.to(dtype)) by the mask in `packed`, in the dtype of the product."""
    cast_probs = probs.to(dtype)
    scale = native_scale(cast_probs, p, rng, forward=True)
    return apply_bits(cast_probs, packed, p, bits, scale).to(product)
