"""Defines packed_dropout(), dropout that keeps packed mask bits for backward and nothing else."""

from typing import Any, cast

import torch
from torch import Tensor
from torch._C._functorch import unwrap_if_dead
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import cuda_rng, cuda_seeds, native, ops, partitioning, reference
from pmexp.packed_dropout.bit_flips import flip_bits
from pmexp.packed_dropout.mask_application import ApplyMask, apply_bits, native_scale
from pmexp.packed_dropout.nested import apply_to_values
from pmexp.packed_dropout.options import (
    Options,
    Rng,
    check_options,
    dropped_without_mask,
    needs_graph,
    needs_mask,
)
from pmexp.packed_dropout.seeds import new_seed, plain_seed, seed_for
from pmexp.packed_dropout.transforms import (
    TransformableFunction,
    in_eager_mode,
    remember_mask,
    transforms_active,
)
from pmexp.shown import class_of


def packed_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    bits: int = 1,
    cache_unpacked: bool = True,
    rng: Rng = "philox",
    flip_rate: float = 0.0,
) -> Tensor:
    """Drops as torch.nn.functional.dropout does, saving ceil(numel * bits / 8) bytes for backward.

    Args:
        input: any shape and memory format, nested as well; float16, bfloat16, float32 or float64.
        p: probability of dropping an element, in [0, 1]. The kept ones are multiplied by 1 / (1 - p) in
            float32 (float64 for float64) and then rounded to the dtype of `input`.
        training: False is the identity and saves nothing.
        inplace: writes the result into `input`.
        bits: width of a stored mask value: 1, or 2 and 4 as stress variants.
        cache_unpacked: where a graph is kept for more backwards (retain_graph=True), keep the Boolean
            mask of the first one. False unpacks each time. A graph used once never holds it.
        rng: "philox" draws with a seed taken from torch's default generator. "torch" draws the very
            mask nn.Dropout would draw from the same generator state, so that outputs and gradients are
            bit-identical to nn.Dropout's; see `torch_rng_record` for how on CUDA. (With inplace=True,
            stock dropout on CUDA draws in another way; the mask here is that of inplace=False.) On the CPU
            1 / (1 - p) then is rounded to the dtype, as stock rounds it: in 16 bits its mean is off, in
            bfloat16 by up to 0.4 %.
        flip_rate: share of the stored bits that are flipped between forward and backward, in [0, 1]: a
            fault injected on purpose, to learn how much of it training bears.

    Raises:
        ValueError: `p`, `bits`, `rng` or `flip_rate` out of range.
        TypeError: `input` is no tensor, or something is to be dropped of what is sparse or not floating.
    """
    if has_torch_function_unary(input):
        options: dict[str, Any]
        options = {"bits": bits, "cache_unpacked": cache_unpacked, "rng": rng, "flip_rate": flip_rate}
        return handle_torch_function(packed_dropout, (input,), input, p, training, inplace, **options)
    if (
        (training and rng == "philox" and not (inplace or flip_rate) and type(p) is float and 0.0 < p < 1.0)
        and (calls := native.calls_for(input))
        and (y := calls.packed_dropout(input, p, bits, cache_unpacked)) is not None
    ):
        return cast(Tensor, y)
    if not isinstance(input, Tensor):
        raise TypeError(f"input: {class_of(input)} is no tensor")
    if input.is_nested:
        options = {"bits": bits, "cache_unpacked": cache_unpacked, "rng": rng, "flip_rate": flip_rate}
        return apply_to_values(packed_dropout, input, p, training, inplace, **options)
    p = float(p)  # torch takes a tensor of one number as well
    check_options(p, bits, rng, flip_rate)
    if not needs_mask(input, p, training):
        return dropped_without_mask(input, p, training, inplace)
    return _dropped_by_python(input, Options(p, bits, cache_unpacked, rng, flip_rate), inplace)


def _dropped_by_python(input: Tensor, chosen: Options, inplace: bool) -> Tensor:
    """Drops what needs a mask, by Python's calls: the way that `input` and what runs around it allow."""
    backend = ops.backend_of_plain(input)
    if backend is not None:
        number = plain_seed(input) if chosen.rng == "philox" else None
        return cast(Tensor, _apply_packed(input, number, chosen, backend, inplace))
    seed = seed_for(input, chosen.rng)
    if not needs_graph(input, chosen.flip_rate):
        y, _ = draw(input, seed, chosen)
        return input.copy_(y) if inplace else y
    if in_eager_mode():
        return cast(Tensor, _apply_packed(unwrap_if_dead(input), seed, chosen, None, inplace))
    return _TransformablePackedDropout.dropped(input, seed, chosen, inplace=inplace)


def dropped_by(generator: torch.Generator, input: Tensor, options: Options) -> Tensor:
    """Drops a plain tensor by Python's calls and rng="philox", with the next seed of `generator`.

    On CUDA the seed is a number there, as it is where the host knows the default generator's.
    """
    seed = torch.randint(
        0, cuda_seeds.BELOW, (1,), dtype=torch.int64, device=input.device, generator=generator
    )
    number = int(seed) if input.is_cuda else seed
    return cast(Tensor, _apply_packed(input, number, options, ops.backend_of_plain(input), False))


def dropout_and_bits(x: Tensor, seed: Tensor | None, options: Options) -> tuple[Tensor, Tensor]:
    """x * keep / (1 - p) with a fresh mask, and the packed mask that backward uses."""
    return cast(tuple[Tensor, Tensor], _TransformablePackedDropout.run(x, seed, options, False))


class _PackedDropout(Function):
    """Drops in eager mode, without transforms.

    It has one output, since each further one costs time, and one of several outputs cannot be a view.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, seed: Tensor | int | None, options: Options, backend: Any, inplace: bool
    ) -> Tensor:
        y, packed = draw(x, seed, options, backend)
        ctx.options, ctx.keep = options, None
        ctx.save_for_backward(packed)
        if not inplace:
            return y
        ctx.mark_dirty(x)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gradient(ctx, grad), None, None, None, None


_apply_packed = super(Function, _PackedDropout).apply  # see TransformableFunction.run


class _TransformablePackedDropout(TransformableFunction):
    @staticmethod
    def forward(x: Tensor, seed: Tensor | None, options: Options, inplace: bool) -> tuple[Tensor, Tensor]:
        # Nothing is asked to be written in place here: where that can be done, _PackedDropout runs.
        return draw(x, seed, options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, ctx.options, _ = inputs
        ctx.keep = None
        remember_mask(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        return None if grad is None else _gradient(ctx, grad), None, None, None

    @staticmethod
    def tangent(ctx: Any, x: Tensor, *_: None) -> tuple[Tensor, None]:
        (packed,) = ctx.saved_tensors
        p, bits, rng = ctx.options.p, ctx.options.bits, ctx.options.rng
        return ApplyMask.run(x, packed, None, p, bits, native_scale(x, p, rng, forward=True)), None


def _gradient(ctx: Any, grad: Tensor) -> Tensor:
    (packed,) = ctx.saved_tensors
    p, bits, rng = ctx.options.p, ctx.options.bits, ctx.options.rng
    if rng == "philox" and not torch.is_grad_enabled():
        backend = ops.backend_of_plain(grad)
        if backend is not None and not _graph_is_kept():
            return cast(Tensor, backend.apply_packed_mask(grad, packed, p, bits))
    keep = _kept_mask(ctx, packed, grad.shape)
    return apply_bits(grad, packed, p, bits, native_scale(grad, p, rng), keep)


def draw(
    x: Tensor, seed: Tensor | int | None, options: Options, backend: Any = None
) -> tuple[Tensor, Tensor]:
    """x * keep / (1 - p) with a fresh mask, and the packed mask as backward shall see it.

    backend: backend_of_plain(x), where it is known.
    """
    p, bits = options.p, options.bits
    if seed is not None:
        y, packed = (backend or ops.operators_for(x)).packed_dropout(x, seed, p, bits)
    elif x.device.type == "cpu" and transforms_active():
        noise = torch.dropout(torch.ones_like(x), p, True)  # vmap may want a mask for each sample
        y, packed = x * noise, ops.pack_bits(noise != 0, bits)
    elif x.device.type == "cpu":
        if torch.compiler.is_compiling():  # a compiler shall make of this what it makes of nn.Dropout
            keep = torch.dropout(torch.ones_like(x), p, True) != 0
        else:  # nn.Dropout draws exactly so, dtype and layout included
            keep = torch.empty_like(x).bernoulli_(1.0 - p)
        y = reference.scaled(x, keep, reference.stock_cpu_scale(p, x.dtype))
        packed = partitioning.pack_drawn(keep, bits)
    elif x.device.type == "cuda":
        y, packed = cuda_rng.native_dropout_packed(x, p, bits)
    else:
        y, keep = torch.native_dropout(x, p, True)
        packed = partitioning.pack_drawn(keep, bits)
    if options.flip_rate:
        packed = flip_bits(packed, x.numel() * bits, options.flip_rate, new_seed(x.device))
    return y, packed


_graph_is_kept = torch._C._autograd._get_current_graph_task_keep_graph


def _kept_mask(ctx: Any, packed: Tensor, shape: torch.Size) -> Tensor | None:
    """The Boolean mask that an earlier backward of this graph left, or leaves for the next one.

    Only a graph kept by retain_graph gets one: in any other the mask would outlive its use, since the
    loss tensor keeps the graph's nodes alive, and peak memory would be that of byte masks.
    """
    if not (ctx.options.cache_unpacked and in_eager_mode()):
        return None
    if ctx.keep is None and _graph_is_kept():
        ctx.keep = ops.unpack_bits(packed, shape, ctx.options.bits)
    keep: Tensor | None = ctx.keep
    return keep
