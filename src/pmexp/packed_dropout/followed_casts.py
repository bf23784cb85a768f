"""Notes of what casts, views and scalings begin with, where autograd's graph does not hold it.

A node says how a cast was made and not of which tensor, nor whether that was changed before, and a tensor
without a gradient has no node at all.
Adapters of frozen weights in 16 bits drop both kinds: each casts one shared input for itself, and in the
first layer that input has no gradient. So a forward that drops runs under a mode, which notes at the result
of each such step what it was made of. A forward in which no note served is not followed again.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pmexp.packed_dropout.graph_views import Step
from pmexp.packed_dropout.kept import Layout
from pmexp.packed_dropout.origins import MADE_OF, OPERANDS, ORIGIN, Making, Operands, Trace, constant_trace_of
from pmexp.packed_dropout.recompute import dtype_in_matmul

Uses = dict[Any, bool]  # whether following a forward served, by what it was called with

_CASTS = {Tensor.to, Tensor.type, Tensor.type_as, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.double}
_STEPS = _CASTS | {
    *(Tensor.contiguous, Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten),
    *(Tensor.transpose, torch.transpose, Tensor.permute, torch.permute, Tensor.unsqueeze, Tensor.squeeze),
    *(Tensor.mul, torch.mul, Tensor.div, torch.div),
}
# Autocast casts what these multiply, and they save that cast and nothing else of it.
_PRODUCTS = {
    *(F.linear, torch.matmul, Tensor.matmul, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm),
    *(F.conv1d, F.conv2d, F.conv3d),
}
_FOLLOWED = _STEPS | _PRODUCTS


def run_followed(uses: Uses, function: Callable[..., Any], args: Any, inputs: tuple[Any, ...]) -> Any:
    """Calls `function` with `args` under the mode, unless that has served in no forward like it.

    inputs: the arguments of the forward, of which the first tensor says what it is like.
    """
    first = None
    for each in inputs[:2]:  # one may be the module
        if isinstance(each, Tensor):
            first = each
            break
    if first is None:
        key: Any = torch.is_autocast_enabled("cpu")
    else:
        key = torch.is_autocast_enabled(first.device.type), first.dtype, first.requires_grad
    if not uses.get(key, True):
        return function(*args)
    note_use = partial(uses.__setitem__, key, True)
    mode = _active()
    if mode is None:
        with _FollowedCasts(note_use):
            result = function(*args)
    else:  # a second mode would be called for every function as well
        outer, mode.note_use = mode.note_use, note_use
        try:
            result = function(*args)
        finally:
            mode.note_use = outer
    uses.setdefault(key, False)
    return result


def _active() -> "_FollowedCasts | None":
    for place in range(torch._C._len_torch_function_stack()):
        mode = torch._C._get_function_stack_at(place)
        if isinstance(mode, _FollowedCasts):
            return mode
    return None


class _FollowedCasts(TorchFunctionMode):
    """Notes of what casts, views and scalings made their results.

    note_use: called where a note serves.
    """

    def __init__(self, note_use: Callable[[], None]) -> None:
        super().__init__()
        self.note_use = note_use

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _FOLLOWED or torch.compiler.is_compiling():
            return func(*args, **kwargs)
        if func in _PRODUCTS:
            before = OPERANDS.set(Operands((*args, *kwargs.values()), self.note_use))
            try:
                return func(*map(self._as_cast, args), **kwargs)
            finally:
                OPERANDS.reset(before)
        result = func(*args, **kwargs)
        if args and result is not args[0] and type(args[0]) is type(result) and _is_plain(result):
            self._note(result, func, *args, **kwargs)
        return result

    def _note(self, result: Tensor, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> None:
        if x.requires_grad and not result.requires_grad:
            return  # the note would keep a graph that the result does not
        step: Step
        if func in _CASTS:
            step = partial(Tensor.to, device=result.device, dtype=result.dtype)
        elif any(isinstance(each, Tensor) for each in (*args, *kwargs.values())):
            return
        else:
            step = partial(_called, func, args, kwargs)
        source = weakref.ref(x), x._version, x.grad_fn, Making.of(x)
        making = Making(result._version, *source, step, self.note_use)
        setattr(result, MADE_OF, making)
        if not x.requires_grad and (trace := _constant_trace(x)):
            self._put_trace(result, trace, step)

    def _as_cast(self, tensor: Any) -> Any:
        """A dropped tensor without a gradient as autocast would cast it, known as a cast of it."""
        if not _is_plain(tensor) or tensor.requires_grad:
            return tensor
        if not torch.is_autocast_enabled(tensor.device.type):
            return tensor
        dtype, trace = dtype_in_matmul(tensor), _constant_trace(tensor)
        if trace is None or dtype == tensor.dtype:
            return tensor
        cast = tensor.to(dtype)
        self._put_trace(cast, trace, partial(Tensor.to, dtype=dtype))
        return cast

    def _put_trace(self, made: Tensor, trace: Trace, step: Step) -> None:
        if made._base is None:
            self.note_use()
            steps = (*trace.steps, step)
            setattr(made, ORIGIN, Trace(trace.origin, None, trace.packed, steps, made._version))


def _called(function: Callable[..., Tensor], args: Any, kwargs: Any, x: Tensor) -> Tensor:
    return function(x, *args, **kwargs)


def _constant_trace(tensor: Tensor) -> Trace | None:
    """The trace of a tensor without a gradient, with the step to that view of it which the tensor is."""
    base = tensor if tensor._base is None else tensor._base
    trace = constant_trace_of(base)
    if trace is None or base is tensor:
        return trace
    steps = (*trace.steps, Layout.of(base).laid_out, Layout.of(tensor).view)
    return Trace(trace.origin, None, trace.packed, steps, trace.version)


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor of no subclass; one that simulates such a tensor is as good."""
    return type(value) is Tensor or type(value).__name__ == "FakeTensor"
