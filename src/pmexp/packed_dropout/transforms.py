"""Has autograd functions take part in torch.func, vmap and forward-mode AD, at no cost to a plain call."""

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active
from torch._C._functorch import unwrap_if_dead
from torch.autograd import Function, forward_ad


class TransformableFunction(Function):
    """An autograd.Function whose forward takes no ctx; what setup_context saves, it saves by `remember`.

    `tangent(ctx, *tangents)` becomes the class's `jvp` only where a transform runs, since torch.compile
    refuses a class that has one. vmap's randomness governs the seed, and with it the mask.
    """

    generate_vmap_rule = True
    tangent: ClassVar[Callable[..., Any]]  # it returns None for a mask

    @classmethod
    def run(cls, *args: Any) -> Any:
        """Does what `apply` does without looking at the signature of forward, which takes 20 us a call."""
        if torch.compiler.is_compiling():
            return cls.apply(*args)
        if transforms_active():
            return _with_tangents(cls).apply(*args)
        # A wrapper is a plain Tensor to Python, and isinstance(1, Tensor) takes long.
        alive = [unwrap_if_dead(arg) if type(arg) is Tensor else arg for arg in args]
        return super(Function, cls).apply(*alive)  # type: ignore[misc]

    @classmethod
    def dropped(cls, x: Tensor, *args: Any, inplace: bool) -> Tensor:
        """The first output of `run(x, *args, inplace)`, where `inplace` is whether it is written into x."""
        if inplace and in_eager_mode():
            return cast(Tensor, _InPlace.apply(cls, x, *args, True))
        outputs = cls.run(x, *args, False)
        y: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]
        return x.copy_(y) if inplace else y  # copy_ is an operator with rules for all transforms


class _InPlace(Function):
    """A function that writes into its first argument, and returns that alone: it may be a view."""

    @staticmethod
    def forward(ctx: Any, function: type[TransformableFunction], x: Tensor, *args: Any) -> Tensor:
        ctx.function = function
        ctx.mark_dirty(x)
        function.setup_context(ctx, (x, *args), function.forward(x, *args))
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.function.backward(ctx, grad)


def in_eager_mode() -> bool:
    """Whether nothing is compiled, and neither a transform of torch.func nor forward-mode AD is around."""
    return not (
        torch.compiler.is_compiling() or _are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def transforms_active() -> bool:
    """Whether a transform of torch.func or a level of forward-mode AD is around, outside of torch.compile."""
    if torch.compiler.is_compiling():
        return False
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0


def can_rebuild() -> bool:
    """Whether hooks see what autograd saves: not under torch.compile, nor under transforms of torch.func."""
    return torch.is_grad_enabled() and in_eager_mode()


def is_rebuilding() -> bool:
    """Whether what autograd saves passes the hooks of rebuild.py, and no transform lies in between."""
    if torch.compiler.is_compiling() or _are_functorch_transforms_active():
        return False
    top = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return top is not None and getattr(getattr(top[0], "__self__", None), "rebuilds_operands", False)


def rebuilds_outermost() -> bool:
    """Whether is_rebuilding(), and no hooks around those of rebuild.py want to have what is saved."""
    top: Any = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return top is not None and getattr(getattr(top[0], "__self__", None), "are_outermost", False)


def remember(ctx: Any, *tensors: Tensor | None) -> None:
    """Saves tensors for backward, and for the tangents where there may be some."""
    ctx.save_for_backward(*tensors)
    if transforms_active():
        ctx.save_for_forward(*tensors)


def remember_mask(ctx: Any, mask: Tensor) -> None:
    """Saves an output that has no gradient. Backward then gets None for it, and for an undefined gradient."""
    ctx.mark_non_differentiable(mask)
    if not torch.compiler.is_compiling():  # dynamo does so by itself
        ctx.set_materialize_grads(False)  # else backward would fill a mask of zeros
    remember(ctx, mask)


@cache
def _with_tangents(function: type[TransformableFunction]) -> type[TransformableFunction]:
    return type(function.__name__, (function,), {"jvp": staticmethod(function.tangent)})
