"""What F.dropout means while a module's forward runs.

A routed module has a child `routed_dropout` and a class of its own, a subclass of what it was under the same
name, whose forward runs under a TorchFunctionMode. Being the forward itself and not hooks around it, whatever
runs the forward again takes the route: a checkpoint inside or outside of the module, a direct call. Each call
enters a mode anew and leaves it, in its thread, so that recursion, errors and threads leave nothing behind.
torch.compile traces through it, and no other model in the process is touched.
"""

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pmexp.packed_dropout.functional import Rng
from pmexp.packed_dropout.recompute import (
    matmul_of_dropped,
    multiplies_alike,
    packed_dropout_and_bits,
)

CHILD = "routed_dropout"
_ROUTED = "_dropout_is_routed"  # of a module: its F.dropout has a route, and without a child torch's own
_ORIGINAL = "_class_without_route"  # of a class made here
_METHODS = "_routed_methods"
_CHECKPOINTS = ("checkpoint", "checkpointing", "checkpoint_activations")  # modules, by the end of their name

ROUTED_CALLS = (F.dropout, torch.dropout, torch.dropout_)
_CASTS = (Tensor.to, Tensor.type, Tensor.type_as)
_SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax)
_VIEWS = (Tensor.view, Tensor.reshape)
_PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)


def add_route(module: nn.Module, methods: Iterable[str] = ()) -> None:
    """Routes F.dropout in the forward of `module`, and in `methods`, to its child; without one to torch's own.

    Raises TypeError for a module whose class takes no subclass.
    """
    plain = {name for name in methods if isinstance(inspect.getattr_static(module, name), types.FunctionType)}
    vars(module)[_ROUTED] = True
    take_routed_class(module, plain)


def remove_route(module: nn.Module) -> None:
    """Takes off what `add_route` did; the child goes too."""
    module._modules.pop(CHILD, None)
    vars(module).pop(_ROUTED, None)
    leave_routed_class(module)


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before it was routed."""
    return cast(type[nn.Module], vars(type(module)).get(_ORIGINAL, type(module)))


def take_routed_class(module: nn.Module, methods: Iterable[str] = ()) -> None:
    """Has the forward of `module`, and `methods` of it, ask for a route at each call."""
    original = original_class(module)
    module.__class__ = _routed_class(
        original, frozenset(["forward", *methods]) | getattr(module, _METHODS, frozenset())
    )
    own = vars(module).get("forward")  # put there by somebody, it hides the class's
    if own is not None and getattr(own, "func", None) is not _call:
        vars(module)["forward"] = functools.partial(_call, module, own)


def leave_routed_class(module: nn.Module) -> None:
    module.__class__ = original_class(module)
    own = vars(module).get("forward")
    if own is not None and getattr(own, "func", None) is _call:
        vars(module)["forward"] = own.args[1]


def _routed_class(original: Any, methods: frozenset[str]) -> Any:
    """A subclass of `original` under the same name: one for all equal modules, which then share a graph."""
    for known in original.__subclasses__():
        if vars(known).get(_ORIGINAL) is original and vars(known)[_METHODS] == methods:
            return known
    body: dict[str, Any] = {name: _routed(getattr(original, name)) for name in methods}
    body |= {"__reduce_ex__": _reduced_to(original, methods), _ORIGINAL: original, _METHODS: methods}
    body |= {name: getattr(original, name) for name in ("__doc__", "__module__", "__qualname__")}
    try:
        return types.new_class(original.__name__, (original,), exec_body=lambda space: space.update(body))
    except Exception:  # of an __init_subclass__ with wishes of its own
        bases = (_WithoutInitSubclass, original)
        return types.new_class(original.__name__, bases, exec_body=lambda space: space.update(body))


class _WithoutInitSubclass:
    def __init_subclass__(cls) -> None:
        pass


def _routed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The method `function`, run under a route where its module has one."""

    @functools.wraps(function)
    def routed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _call(self, function, self, *args, **kwargs)

    # torch.compile keeps its graphs by code object, and gives up after a few: not all classes shall share one
    routed.__code__ = routed.__code__.replace(co_name=function.__name__)
    return routed


def _reduced_to(original: Any, methods: frozenset[str]) -> Callable[..., Any]:
    """The __reduce_ex__ of a class that no pickle finds by its name."""

    def reduce(self: nn.Module, protocol: Any) -> Any:
        make, args, *state = original.__reduce_ex__(self, protocol)
        args = tuple(original if arg is type(self) else arg for arg in args)
        return _rebuilt, (original, methods, make, args), *state

    return reduce


def _rebuilt(original: Any, methods: frozenset[str], make: Callable[..., Any], args: Any) -> Any:
    module = make(*args)
    module.__class__ = _routed_class(original, methods)
    return module


def _call(module: nn.Module, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    if not getattr(module, _ROUTED, False):
        return function(*args, **kwargs)
    return _run(_route_of(module), function, args, kwargs)


def _run(route: "Route", function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    with route:
        return function(*args, **kwargs)


def _route_of(module: nn.Module) -> "Route":
    child = module._modules.get(CHILD)
    recomputes = any(getattr(part, "recompute", False) for part in module._modules.values())
    if not recomputes:
        return Route(child)
    known = innermost_route()  # of the forward that called a method; it follows the probabilities of both
    return (
        known
        if isinstance(known, RecomputingRoute) and known.of is module
        else RecomputingRoute(child, module)
    )


def innermost_route() -> "Route | None":
    """The route of the innermost routed forward that runs in this thread."""
    for place in reversed(range(torch._C._len_torch_function_stack())):
        mode = torch._C._get_function_stack_at(place)
        if isinstance(mode, Route):
            return mode
    return None


class Route(TorchFunctionMode):
    """Sends F.dropout to `dropout.drop`; without one to torch's, whatever route lies around."""

    def __init__(self, dropout: nn.Module | None) -> None:
        super().__init__()
        self.dropout: Any = dropout

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in ROUTED_CALLS:
            return func(*args, **kwargs)
        if func is not F.dropout:
            kwargs = {"training" if name == "train" else name: value for name, value in kwargs.items()}
            kwargs["inplace"] = func is torch.dropout_
        if self.dropout is None or (not torch.compiler.is_compiling() and _would_be_rerun_without_route()):
            return _stock(*args, **kwargs)
        return self.drop(*args, **kwargs)

    def drop(self, *args: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, self.dropout.drop(*args, **kwargs))


def _would_be_rerun_without_route() -> bool:
    """Whether a function that the routed forward gave to a checkpoint makes this call.

    The checkpoint will call that function again, and not the forward: the call stays torch's both times.
    """
    frame = sys._getframe(2)
    while frame and frame.f_code is not _run.__code__:
        if frame.f_globals.get("__name__", "").rpartition(".")[2] in _CHECKPOINTS:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _stock(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """torch's dropout, by a name that no route around takes for a call of its own."""
    dropout = torch.ops.aten.dropout_ if inplace else torch.ops.aten.dropout
    return cast(Tensor, dropout(input, p, training))


_MadeOf = tuple[Tensor, Tensor, float, int, Rng]  # probabilities, packed mask, p, bits, rng


class RecomputingRoute(Route):
    """Where dropped probabilities are multiplied with values, saves what they are made of in their place.

    Follows softmax -> cast -> dropout -> matmul by the identity of the tensors. Code that takes another way
    gets the plain packed dropout.
    """

    def __init__(self, dropout: nn.Module | None, of: nn.Module) -> None:
        super().__init__(dropout)
        self.of = of
        self.softmax: Tensor | None = None  # the last softmax's output
        self.probs: Tensor | None = None  # that, or its cast
        self.dropped: Tensor | None = None
        self.made_of: _MadeOf | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in ROUTED_CALLS:
            return super().__torch_function__(func, types, args, kwargs)
        kwargs = kwargs or {}
        if func in _PRODUCTS and self.made_of is not None and args[0] is self.dropped:
            return self._product(self.made_of, func, *args, **kwargs)
        result = func(*args, **kwargs)
        if func in _VIEWS and self.made_of is not None and args[0] is self.dropped:
            probs, *mask = self.made_of
            self.dropped, self.made_of = result, (func(probs, *args[1:], **kwargs), *mask)
        elif func in _SOFTMAXES:
            self.softmax = self.probs = result
        elif func in _CASTS and self.softmax is not None and args[0] is self.softmax:
            self.probs = result
        return result

    def drop(self, *args: Any, **kwargs: Any) -> Tensor:
        if getattr(self.dropout, "recompute", False):
            kwargs["route"] = self
        return super().drop(*args, **kwargs)

    def packed_dropout(self, input: Tensor, p: float, training: bool, **options: Any) -> Tensor:
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
