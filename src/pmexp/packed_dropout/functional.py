"""Defines packed_dropout(), dropout that keeps packed mask bits for backward and nothing else."""

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch._C._functorch import unwrap_if_dead
from torch.autograd import Function, forward_ad
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import cuda_mapping, cuda_rng, cuda_seeds, native, ops, partitioning, reference
from pmexp.packed_dropout.bit_flips import flip_bits
from pmexp.packed_dropout.nested import apply_to_values
from pmexp.packed_dropout.transforms import (
    TransformableFunction,
    in_eager_mode,
    remember,
    remember_mask,
    transforms_active,
)

Rng = Literal["philox", "torch"]
_RNGS = get_args(Rng)


@dataclass(slots=True)
class Options:
    """Says how one mask is drawn and kept: the keywords of packed_dropout.

    A dataclass and no tuple, since transforms take tuples apart.
    """

    p: float
    bits: int
    cache_unpacked: bool
    rng: Rng
    flip_rate: float


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
        raise TypeError(f"input: a {type(input).__name__} is no tensor")
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


def needs_mask(input: Tensor, p: float, training: bool) -> bool:
    """Whether dropout has to draw a mask.

    Raises TypeError for an integer or a sparse tensor of which something is to be dropped, and
    NotImplementedError where forward-mode derivatives are compiled: torch.compile knows none of an
    autograd.Function.
    """
    if not training or p == 0.0:
        return False  # `input` stays as it is, of whatever dtype and layout
    if not input.is_floating_point():
        raise TypeError(f"dropout takes a floating-point tensor, got {input.dtype}")
    if input.layout is not torch.strided:
        raise TypeError(f"dropout takes a dense or nested tensor, got {input.layout}")
    if p == 1.0 or input.numel() == 0:
        return False
    if forward_ad._current_level >= 0 and torch.compiler.is_compiling():
        raise NotImplementedError("packed masks have no forward-mode derivative")
    return True


def dropped_without_mask(input: Tensor, p: float, training: bool, inplace: bool = False) -> Tensor:
    """Returns the result where `needs_mask` says no: `input`, or zeros of it."""
    if not training or p < 1.0:
        return input
    return input.mul_(0.0) if inplace else input * 0.0


def needs_graph(input: Tensor, flip_rate: float = 0.0) -> bool:
    """Whether the function has to run as an autograd.Function.

    It need not in an exported program, whose operators have gradients of their own, nor in a compiled graph
    where nothing needs a gradient, since dynamo refuses mark_dirty there. In eager mode it always has to:
    operators alone would give wrong tangents.

    Raises ValueError for a `flip_rate` in an exported program, whose operators see the same bits in backward.
    """
    if torch.compiler._is_exporting_flag:  # is_exporting() is True in any compiled graph before torch 2.13
        if flip_rate:
            raise ValueError(f"flip_rate: {flip_rate} cannot be exported; allowed is 0")
        return False
    return not torch.compiler.is_compiling() or (torch.is_grad_enabled() and input.requires_grad)


def new_seed(device: torch.device) -> Tensor:
    """One int64 drawn from torch's default generator of `device`: all the randomness of one Philox mask.

    For a CUDA device it lies on the CPU where the host knows it, which spares a launch.
    """
    if torch.compiler.is_compiling():
        return partitioning.draw_seed(cuda_seeds.BELOW, device)
    if device.type == "cuda" and cuda_seeds.known_on_host(device):
        return seed_as_tensor(cuda_seeds.draw(device))
    return _seed_of_torch(device)


def seed_as_tensor(seed: Tensor | int) -> Tensor:
    """Returns a number as the (1,) int64 on the CPU that operators take."""
    return torch.full((1,), seed, dtype=torch.int64, device="cpu") if isinstance(seed, int) else seed


def _seed_of_torch(device: torch.device) -> Tensor:
    return torch.randint(0, cuda_seeds.BELOW, (1,), dtype=torch.int64, device=device)


def seed_for(input: Tensor, rng: Rng) -> Tensor | None:
    """The seed of a mask; None for rng="torch", whose masks take many draws of torch's generator."""
    return new_seed(input.device) if rng == "philox" else None


def plain_seed(input: Tensor) -> Tensor | int:
    """new_seed() for an input with a backend_of_plain: a number where the host knows it, sparing a tensor."""
    if input.is_cuda and cuda_seeds.known_on_host(input.device):
        return cuda_seeds.draw(input.device)
    return _seed_of_torch(input.device)


def check_options(p: float, bits: int = 1, rng: str = "philox", flip_rate: float = 0.0) -> None:
    """Raises ValueError naming the first option that is out of range."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p: {p} is not a dropout probability; allowed is 0 to 1")
    reference.values_per_byte(bits)
    if rng not in _RNGS:
        raise ValueError(f"rng: {rng!r} is unknown; allowed are {', '.join(_RNGS)}")
    if not 0.0 <= flip_rate <= 1.0:
        raise ValueError(f"flip_rate: {flip_rate} is not a share of bits; allowed is 0 to 1")


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
        y, packed = draw(x, seed, options)
        return x.copy_(y) if inplace else y, packed

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
        return _ApplyMask.run(x, packed, None, p, bits, native_scale(x, p, rng, forward=True)), None


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
        return cast(Tensor, _ApplyMask.run(x, packed, keep, p, bits, scale))
    return _apply_mask(x, packed, keep, p, bits, scale)


class _ApplyMask(TransformableFunction):
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
        return _ApplyMask.run(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None, None

    @staticmethod
    def tangent(ctx: Any, x: Tensor, *_: None) -> Tensor:
        return cast(Tensor, _ApplyMask.run(x, *ctx.saved_tensors, *ctx.options))


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
