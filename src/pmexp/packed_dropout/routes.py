"""Says what F.dropout means while a routed forward runs, and the dropout inside of attention.

Routes are TorchFunctionModes, which recursion, errors and threads leave as they were.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pmexp.packed_dropout.attention import (
    AttentionDropout,
    as_called,
    drops,
    math_attention,
    multi_head_attention_forward,
)
from pmexp.packed_dropout.options import Rng
from pmexp.packed_dropout.recompute import (
    matmul_of_dropped,
    multiplies_alike,
    packed_dropout_and_bits,
)
from pmexp.packed_dropout.route_key import run_beside

ROUTED_CALLS = (F.dropout, torch.dropout, torch.dropout_)
_CHECKPOINTS = (
    ".checkpoint",
    ".checkpointing",
    ".checkpoint_activations",
)  # ends of the names of modules of torch and others
_ROUTED = (*ROUTED_CALLS, F.scaled_dot_product_attention, F.multi_head_attention_forward)
_CASTS = (Tensor.to, Tensor.type, Tensor.type_as)
_SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax, torch.ops.aten._safe_softmax)
_VIEWS = (Tensor.view, Tensor.reshape)
_PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)


def run_under(route: "Route", function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Calls `function` in the mode `route`."""
    if torch.compiler.is_compiling():
        return _run_under(route, function, args, kwargs)
    return run_beside(_run_under, route, function, args, kwargs)


def _run_under(route: "Route", function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    with route:
        return function(*args, **kwargs)


def innermost_route() -> "Route | None":
    """The route of the innermost routed forward that runs in this thread."""
    for place in reversed(range(torch._C._len_torch_function_stack())):
        mode = torch._C._get_function_stack_at(place)
        if isinstance(mode, Route):
            return mode
    return None


class Route(TorchFunctionMode):
    """Sends F.dropout to `dropout.drop`; without one to torch's, whatever route lies around.

    attention: what the dropout inside F.scaled_dot_product_attention is sent to; None for torch's as well.
    """

    def __init__(self, dropout: nn.Module | None, attention: AttentionDropout | None = None) -> None:
        super().__init__()
        self.dropout: Any = dropout
        self.attention = attention

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _ROUTED:
            # torch.compile cannot trace the method where a mode is around.
            return (torch.unflatten if func is Tensor.unflatten else func)(*args, **kwargs)
        if func is not F.dropout and func in ROUTED_CALLS:
            kwargs = {"training" if name == "train" else name: value for name, value in kwargs.items()}
            kwargs["inplace"] = func is torch.dropout_
        if not torch.compiler.is_compiling() and _would_be_rerun_without_route():
            return (stock_dropout if func in ROUTED_CALLS else func)(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return run_under(self, multi_head_attention_forward, args, kwargs)
        if func is F.scaled_dot_product_attention:
            # A class of tensors, as a mask may be of, has an attention of its own.
            reachable = drops(*args, **kwargs) and not types
            return self.attend(*args, **kwargs) if reachable else func(*args, **kwargs)
        return self.drop_as_chosen(*args, **kwargs)

    def drop_as_chosen(self, *args: Any, **kwargs: Any) -> Tensor:
        """Drops by what F.dropout means, with its arguments."""
        self.choose()
        return stock_dropout(*args, **kwargs) if self.dropout is None else self.drop(*args, **kwargs)

    def attend(self, *args: Any, **kwargs: Any) -> Tensor:
        """Computes scaled_dot_product_attention: step by step where its dropout can be reached."""
        self.choose_attention()
        args, kwargs = as_called(*args, **kwargs)
        if self.attention is None or not self.attention.reaches(*args, **kwargs):
            return stock_attention(*args, **kwargs)
        return cast(Tensor, run_under(self.within(self.attention), math_attention, args, kwargs))

    def within(self, attention: AttentionDropout) -> "Route":
        """The route of the steps of attention, whose F.dropout drops probabilities."""
        return Route(attention.dropout)

    def choose(self) -> None:
        """Sets `dropout`, before it is used, in a route that is made without knowing it."""

    def choose_attention(self) -> None:
        """Sets `attention` likewise."""

    def drop(self, *args: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, self.dropout.drop(*args, **kwargs))


def _would_be_rerun_without_route() -> bool:
    """Whether a function that the routed forward gave to a checkpoint makes this call.

    The checkpoint will call that function again, and not the forward: the call stays torch's both times.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame and frame.f_code is not _run_under.__code__:
        if is_of_checkpoint(frame):
            return True
        frame = frame.f_back
    return False


def is_of_checkpoint(frame: FrameType) -> bool:
    """Whether code of a checkpoint runs in `frame`."""
    return cast(bool, frame.f_globals.get("__name__", "").endswith(_CHECKPOINTS))


def stock_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """torch's dropout, called as an aten operator, which no surrounding route intercepts."""
    dropout = torch.ops.aten.dropout_ if inplace else torch.ops.aten.dropout
    return cast(Tensor, dropout(input, p, training))


def stock_attention(*args: Any, **kwargs: Any) -> Tensor:
    """torch's attention, called likewise."""
    return cast(Tensor, torch.ops.aten.scaled_dot_product_attention(*args, **kwargs))


def _writes(func: Any) -> bool:
    """Whether a function of torch writes into a tensor that it is given, judged by its name."""
    name: str = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") or name == "__setitem__"
    return name.endswith("_")


# torch.compile does not trace what looks at a name, and calls this while it traces. (The mark is that of
# torch.compiler.assume_constant_result, which imports the compiler.)
cast(Any, _writes)._dynamo_marked_constant = True

_MadeOf = tuple[Tensor, Tensor, float, int, Rng]  # probabilities, packed mask, p, bits, rng


class RecomputingRoute(Route):
    """Where dropped probabilities are multiplied with values, saves what they are made of in their place.

    Follows softmax -> cast -> dropout -> matmul by the identity of the tensors. Code that takes another way,
    or writes into some tensor in between, gets the plain packed dropout.
    """

    def __init__(
        self, dropout: nn.Module | None, module: nn.Module, attention: AttentionDropout | None = None
    ) -> None:
        super().__init__(dropout, attention)
        self.module = module  # the one whose forward runs
        self.softmax: Tensor | None = None  # the output of the last softmax
        self.probs: Tensor | None = None  # that output, or its cast
        self.dropped: Tensor | None = None
        self.made_of: _MadeOf | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        remembers = self.made_of is not None or self.softmax is not None
        if remembers and (_writes(func) or "out" in kwargs or kwargs.get("inplace")):
            self._forget()  # what is remembered, or a view of it, may be written into
        if func in _ROUTED:
            return super().__torch_function__(func, types, args, kwargs)
        if func in _PRODUCTS and self.made_of is not None and args[0] is self.dropped:
            return self._product(self.made_of, func, *args, **kwargs)
        result = super().__torch_function__(func, types, args, kwargs)
        if func in _VIEWS and self.made_of is not None and args[0] is self.dropped:
            probs, *mask = self.made_of
            self.dropped, self.made_of = result, (func(probs, *args[1:], **kwargs), *mask)
        elif func in _SOFTMAXES:
            self.softmax = self.probs = result
        elif func in _CASTS and self.softmax is not None and args[0] is self.softmax:
            self.probs = result
        return result

    def _forget(self) -> None:
        self.softmax = self.probs = self.dropped = self.made_of = None

    def within(self, attention: AttentionDropout) -> Route:
        return RecomputingRoute(attention.dropout, self.module)

    def drop(self, *args: Any, **kwargs: Any) -> Tensor:
        if getattr(self.dropout, "recompute", False):
            kwargs["route"] = self
        return super().drop(*args, **kwargs)

    def packed_dropout(
        self, input: Tensor, p: float, training: bool, inplace: Literal[False] = False, **options: Any
    ) -> Tensor:
        """packed_dropout(), remembered until its result is multiplied."""
        dropped, packed = packed_dropout_and_bits(input, p, training, **options)
        if packed is not None:
            source = self.softmax if self.softmax is not None and input is self.probs else input
            self.dropped, self.made_of = dropped, (source, packed, p, options["bits"], options["rng"])
        return dropped

    def _product(self, made_of: _MadeOf, func: Any, dropped: Tensor, *others: Any, **kwargs: Any) -> Any:
        self.dropped = self.made_of = None
        if kwargs or not multiplies_alike(dropped, others[0]):
            return func(dropped, *others, **kwargs)
        probs, packed, p, bits, rng = made_of
        return matmul_of_dropped(probs, others[0], dropped, packed, p, bits, rng)
