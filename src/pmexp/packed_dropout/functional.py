"""packed_dropout(): dropout whose backward keeps packed mask bits and nothing else."""

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function_unary

from pmexp.packed_dropout import ops, reference

Rng = Literal["philox", "torch"]


def packed_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    bits: int = 1,
    cache_unpacked: bool = True,
    rng: Rng = "philox",
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

    Raises:
        ValueError: `p`, `bits` or `rng` out of range.  TypeError: `input` is not a floating tensor.
    """
    if has_torch_function_unary(input):
        options: dict[str, Any] = {"bits": bits, "cache_unpacked": cache_unpacked, "rng": rng}
        return handle_torch_function(packed_dropout, (input,), input, p, training, inplace, **options)
    check_options(p, bits, rng)
    if not input.is_floating_point():
        raise TypeError(f"packed_dropout takes a floating-point tensor, got {input.dtype}")
    if not training or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        return input.mul_(0.0) if inplace else input * 0.0
    if rng == "torch":
        return cast(Tensor, _TorchMask.apply(input, p, bits, cache_unpacked, inplace))
    seed = torch.randint(0, 2**62, (1,), dtype=torch.int64, device=input.device)
    return cast(Tensor, _PhiloxMask.apply(input, seed, p, bits, cache_unpacked, inplace))


def check_options(p: float, bits: int, rng: str) -> None:
    """Raises ValueError naming the first option that is out of range."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p: {p} is not a dropout probability; allowed is 0 to 1")
    reference.values_per_byte(bits)
    if rng not in get_args(Rng):
        raise ValueError(f"rng: {rng!r} is unknown; allowed are {', '.join(get_args(Rng))}")


class _MaskedBackward(Function):
    """Common backward: grad * keep / (1 - p), itself differentiable. Subclasses draw the mask."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        keep = _kept_mask(ctx, packed, grad.shape) if ctx.cache_unpacked else None
        # Grad mode is on in a backward only under create_graph=True; else a node would be made for nothing.
        apply = _ApplyMask.apply if torch.is_grad_enabled() else _apply_mask
        grad_input = apply(grad, packed, keep, ctx.p, ctx.bits)
        return grad_input, *(None for _ in ctx.needs_input_grad[1:])


class _PhiloxMask(_MaskedBackward):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, seed: Tensor, p: float, bits: int, cache_unpacked: bool, inplace: bool
    ) -> Tensor:
        y, packed = ops.packed_dropout(x, seed, p, bits)
        return _finish(ctx, x, y, packed, p, bits, cache_unpacked, inplace)


class _TorchMask(_MaskedBackward):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, bits: int, cache_unpacked: bool, inplace: bool) -> Tensor:
        if x.device.type == "cpu":
            keep = torch.empty_like(x).bernoulli_(
                1.0 - p
            )  # the draw of nn.Dropout, dtype and layout included
            y = reference.apply_mask(x, keep, p)
        else:
            y, keep = torch.native_dropout(x, p, True)
        return _finish(ctx, x, y, ops.pack_bits(keep, bits), p, bits, cache_unpacked, inplace)


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
    y: Tensor = ops.apply_packed_mask(x, packed, p, bits)
    return y


def _finish(
    ctx: Any, x: Tensor, y: Tensor, packed: Tensor, p: float, bits: int, cache_unpacked: bool, inplace: bool
) -> Tensor:
    ctx.save_for_backward(packed)
    ctx.p, ctx.bits, ctx.cache_unpacked, ctx.keep = p, bits, cache_unpacked, None
    if not inplace:
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
        ctx.keep = ops.unpack_bits(packed, shape, ctx.bits)
    keep: Tensor | None = ctx.keep
    return keep
