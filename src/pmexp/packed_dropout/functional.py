"""packed_dropout(): dropout whose backward keeps packed mask bits and nothing else."""

from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import ops, reference
from pmexp.packed_dropout.bit_flips import flip_bits

Rng = Literal["philox", "torch"]
_RNGS = get_args(Rng)


class _Options(NamedTuple):
    p: float
    bits: int
    cache_unpacked: bool
    flip_rate: float
    inplace: bool


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
    """Dropout like torch.nn.functional.dropout, saving ceil(numel * bits / 8) bytes for backward.

    Args:
        input: any shape and layout; float16, bfloat16, float32 or float64.
        p: probability of dropping an element, in [0, 1]. The kept ones are scaled by 1 / (1 - p).
        training: False is the identity and saves nothing.
        inplace: writes the result into `input`.
        bits: width of a stored mask value: 1, or 2 and 4 as stress variants.
        cache_unpacked: where a graph is kept for more backwards (retain_graph=True), keep the Boolean
            mask of the first one. False unpacks each time. A graph used once never holds it.
        rng: "philox" draws with a seed taken from torch's default generator. "torch" draws the very
            mask nn.Dropout would draw from the same generator state: on the CPU outputs and
            gradients are then bit-identical to nn.Dropout's.
        flip_rate: share of the stored bits that are flipped between forward and backward, in [0, 1]: a
            fault injected on purpose, to learn how much of it training bears.

    Raises:
        ValueError: `p`, `bits`, `rng` or `flip_rate` out of range.
        TypeError: `input` is not a floating tensor.
    """
    if has_torch_function_unary(input):
        options: dict[str, Any] = {"bits": bits, "cache_unpacked": cache_unpacked, "rng": rng}
        options |= {"flip_rate": flip_rate}
        return handle_torch_function(packed_dropout, (input,), input, p, training, inplace, **options)
    check_options(p, bits, rng, flip_rate)
    if not input.is_floating_point():
        raise TypeError(f"packed_dropout takes a floating-point tensor, got {input.dtype}")
    if not training or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        return input.mul_(0.0) if inplace else input * 0.0
    chosen = _Options(p, bits, cache_unpacked, flip_rate, inplace)
    if rng == "torch":
        return cast(Tensor, _TorchMask.apply(input, chosen))
    return cast(Tensor, _PhiloxMask.apply(input, new_seed(input.device), chosen))


def new_seed(device: torch.device) -> Tensor:
    """One int64 drawn from torch's default generator of `device`: all the randomness of one mask."""
    return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)


def check_options(p: float, bits: int, rng: str = "philox", flip_rate: float = 0.0) -> None:
    """Raises ValueError naming the first option that is out of range."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p: {p} is not a dropout probability; allowed is 0 to 1")
    reference.values_per_byte(bits)
    if rng not in _RNGS:
        raise ValueError(f"rng: {rng!r} is unknown; allowed are {', '.join(_RNGS)}")
    if not 0.0 <= flip_rate <= 1.0:
        raise ValueError(f"flip_rate: {flip_rate} is not a share of bits; allowed is 0 to 1")


class _MaskedBackward(Function):
    """Common backward: grad * keep / (1 - p), itself differentiable. Subclasses draw the mask."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        options: _Options = ctx.options
        keep = _kept_mask(ctx, packed, grad.shape) if options.cache_unpacked else None
        # Grad mode is on in a backward only under create_graph=True; else a node would be made for nothing.
        apply = _ApplyMask.apply if torch.is_grad_enabled() else _apply_mask
        grad_input = apply(grad, packed, keep, options.p, options.bits)
        return (grad_input, *ctx.no_gradients)


class _PhiloxMask(_MaskedBackward):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, options: _Options) -> Tensor:
        y, packed = ops.operators_for(x).packed_dropout(x, seed, options.p, options.bits)
        ctx.no_gradients = (None, None)
        return _finish(ctx, x, y, packed, options)


class _TorchMask(_MaskedBackward):
    @staticmethod
    def forward(ctx: Any, x: Tensor, options: _Options) -> Tensor:
        if x.device.type == "cpu":
            # The draw of nn.Dropout, dtype and layout included.
            keep = torch.empty_like(x).bernoulli_(1.0 - options.p)
            y = reference.apply_mask(x, keep, options.p)
        else:
            y, keep = torch.native_dropout(x, options.p, True)
        ctx.no_gradients = (None,)
        return _finish(ctx, x, y, ops.pack_bits(keep, options.bits), options)


class _ApplyMask(Function):
    """x * keep / (1 - p) by a mask already drawn: linear in x and its own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, keep: Tensor | None, p: float, bits: int) -> Tensor:
        ctx.save_for_backward(packed, keep)
        ctx.p, ctx.bits = p, bits
        return _apply_mask(x, packed, keep, p, bits)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packed, keep = ctx.saved_tensors
        return _ApplyMask.apply(grad, packed, keep, ctx.p, ctx.bits), None, None, None, None


def _apply_mask(x: Tensor, packed: Tensor, keep: Tensor | None, p: float, bits: int) -> Tensor:
    """x * keep / (1 - p), by the Boolean mask where there is one."""
    if keep is not None:
        return reference.apply_mask(x, keep, p)
    y: Tensor = ops.operators_for(x).apply_packed_mask(x, packed, p, bits)
    return y


def _finish(ctx: Any, x: Tensor, y: Tensor, packed: Tensor, options: _Options) -> Tensor:
    if options.flip_rate:
        packed = flip_bits(packed, x.numel() * options.bits, options.flip_rate, new_seed(x.device))
    ctx.save_for_backward(packed)
    ctx.options, ctx.keep = options, None
    if not options.inplace:
        return y
    ctx.mark_dirty(x)
    return x.copy_(y)


def _kept_mask(ctx: Any, packed: Tensor, shape: torch.Size) -> Tensor | None:
    """The Boolean mask that an earlier backward of this graph left, or leaves for the next one.

    Only a graph kept by retain_graph gets one: in any other the mask would outlive its use, since the
    loss tensor keeps the graph's nodes alive, and peak memory would be that of byte masks.
    """
    if torch.compiler.is_compiling():
        return None
    if ctx.keep is None and torch._C._autograd._get_current_graph_task_keep_graph():
        ctx.keep = ops.unpack_bits(packed, shape, ctx.options.bits)
    keep: Tensor | None = ctx.keep
    return keep
