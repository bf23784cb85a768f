"""Has the forward of modules run under a route.

A routed module has a dropout, its attribute `routed_dropout`, and a class of its own, a subclass of what it
was under the same name, whose forward enters a route. The dropout is no submodule, since many a forward runs
all submodules. The forward itself enters the route and no hook around it, so whatever runs it again takes it
too: a checkpoint inside or outside of the module, a direct call. torch.compile traces through it, copies and
pickles keep it, and no other model in the process is touched.
"""

import copy
import functools
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import nn

from pmexp.packed_dropout.attention import AttentionDropout
from pmexp.packed_dropout.bit_comparison import FirstBackward
from pmexp.packed_dropout.followed_casts import run_followed
from pmexp.packed_dropout.rebuild import rebuilding
from pmexp.packed_dropout.route_key import KeyTurn, is_key_off, key_turn
from pmexp.packed_dropout.routes import RecomputingRoute, Route, innermost_route, run_under
from pmexp.packed_dropout.transforms import can_rebuild, is_rebuilding

DROPOUT = "routed_dropout"  # the module that F.dropout means in the forward of the one that holds it
ATTENTION = "routed_attention"  # its AttentionDropout, for F.scaled_dot_product_attention in that forward
WATCH = "_dropout_watch"  # holds what looks at a module's next forward; see discovery.py
CHOICE = "_attention_choice"  # holds what notices another attention; see attention_choice.py
_ROUTED = (
    "_dropout_is_routed"  # whether a module's F.dropout has a route, which without a dropout leads to torch's
)
_REBUILDS = (
    "_operands_are_rebuilt"  # whether a module's forward saves dropped tensors as what they are made of
)
_BY_MODE = "_route_is_a_mode"  # whether a module's route has to be a mode, and never the key of route_key.py
_ORIGINAL = "_class_without_route"  # the class that a class made here was made of
_METHODS = "_routed_methods"
_FOLLOWED = "_followed_casts"  # in which of a module's forwards it served to follow casts
_FIRST = "_first_backward"  # the FirstBackward of the model that a module is
_MARKS = (_ROUTED, _REBUILDS, _FOLLOWED, _FIRST, _BY_MODE, DROPOUT, ATTENTION, WATCH, CHOICE)


def add_route(module: nn.Module, methods: Iterable[str] = ()) -> None:
    """Routes F.dropout in the forward of `module`, and in `methods`, to its dropout; without one to torch.

    Raises TypeError for a module whose class takes no subclass.
    """
    plain = {name for name in methods if isinstance(inspect.getattr_static(module, name), types.FunctionType)}
    vars(module)[_ROUTED] = True
    take_routed_class(module, plain)


def add_rebuilding(module: nn.Module, drops: bool = True, first: FirstBackward | None = None) -> None:
    """Has the forward of `module` save dropped tensors as what they are made of, if their dropout recomputes.

    A forward around it does so too; but a checkpoint in between saves by itself what runs inside of it.
    Raises TypeError for a module whose class takes no subclass.

    drops: whether the forward itself calls a dropout; then casts in it are followed, where that serves.
    first: compares what the first backward makes again.
    """
    _set_rebuilding(module, True, drops)
    if first is not None:
        vars(module)[_FIRST] = first
    take_routed_class(module)


def _set_rebuilding(module: nn.Module, rebuilds: bool, drops: bool = True) -> None:
    vars(module)[_REBUILDS] = rebuilds
    if rebuilds and drops:
        vars(module)[_FOLLOWED] = {}


def remove_route(module: nn.Module) -> "Marks | None":
    """Removes what routes and watches `module`, and returns it for put_back()."""
    removed = _marks(module) if _ORIGINAL in vars(type(module)) else None
    for mark in _MARKS:
        vars(module).pop(mark, None)
    leave_routed_class(module)
    return removed


def put_back(module: nn.Module, removed: "Marks") -> None:
    """Routes `module` again as it was before remove_route."""
    methods, marks = removed
    vars(module).update(marks)
    take_routed_class(module, methods)


def route_by_mode(module: nn.Module) -> None:
    """Has the route of `module`, where it has one, be a mode at each call."""
    vars(module)[_BY_MODE] = True


def routed_dropout(module: nn.Module) -> nn.Module | None:
    """Returns the module that F.dropout means in the forward of `module`; None for torch's own."""
    return cast(nn.Module | None, getattr(module, DROPOUT, None))


def put_routed_dropout(module: nn.Module, dropout: nn.Module) -> None:
    """Has functional dropout in the forward of `module` go to `dropout`."""
    vars(module)[DROPOUT] = dropout
    _set_rebuilding(module, getattr(dropout, "recompute", False))


def routed_attention(module: nn.Module) -> AttentionDropout | None:
    """Returns what the dropout inside attention is sent to in the forward of `module`; None for torch's."""
    return cast(AttentionDropout | None, getattr(module, ATTENTION, None))


def fused_kernel(module: nn.Module) -> str | None:
    """Names the kernel that computed the attention of a routed `module` and dropped out of reach; None where
    none did."""
    attention = routed_attention(module)
    if attention is None or attention.name not in attention.report.left:
        return None
    return attention.report.attention.get(attention.name)


def put_routed_attention(module: nn.Module, attention: AttentionDropout) -> None:
    """Has the dropout inside attention in the forward of `module` go to `attention`."""
    vars(module)[ATTENTION] = attention
    _set_rebuilding(module, getattr(attention.dropout, "recompute", False))


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before it was routed."""
    return cast(type[nn.Module], vars(type(module)).get(_ORIGINAL, type(module)))


def take_routed_class(module: nn.Module, methods: Iterable[str] = ()) -> None:
    """Has the forward of `module`, and `methods` of it, ask for a route at each call."""
    # The class may have inherited routed methods from a base that is routed.
    known: frozenset[str] = getattr(module, _METHODS, frozenset())
    if not (wanted := frozenset(["forward", *methods])) <= known:
        module.__class__ = _routed_class(original_class(module), wanted | known)
    own = vars(module).get("forward")  # an attribute of the instance hides the class's forward
    if own is not None and getattr(own, "func", None) is not _call:
        vars(module)["forward"] = functools.update_wrapper(functools.partial(_call, module, own), own)


def class_may_go(module: nn.Module) -> bool:
    """Whether a forward that ran under the class of a route may be run again without it, by a checkpoint.

    transformers' layers wrap the forward of each subclass, and ask which one they are when it runs.
    """
    return not any("__init_subclass__" in vars(base) for base in original_class(module).__mro__[:-1])


def leave_routed_class(module: nn.Module) -> None:
    """Gives `module` back the class, and the forward of its own, that it had before it was routed."""
    if _ORIGINAL in vars(type(module)):  # a traced module hands what is assigned to it on to another
        module.__class__ = original_class(module)
    own = vars(module).get("forward")
    if own is not None and getattr(own, "func", None) is _call:
        vars(module)["forward"] = own.args[1]


def _routed_class(original: Any, methods: frozenset[str]) -> Any:
    """A subclass of `original` under the same name: one for all equal modules, which then share a graph."""
    for known in original.__subclasses__():
        if vars(known).get(_ORIGINAL) is original and vars(known)[_METHODS] == methods:
            return known
    body: dict[str, Any] = {name: _routed(original, name) for name in methods}
    body |= {"__reduce_ex__": _reduced_to(original), _ORIGINAL: original, _METHODS: methods}
    # An attribute that is there is looked up faster than a missing one.
    body |= {_ROUTED: False, _REBUILDS: False, DROPOUT: None, ATTENTION: None, WATCH: None, CHOICE: None}
    body |= {_FOLLOWED: None, _FIRST: None, _BY_MODE: False}
    body["__prepare_scriptable__"] = _prepared_for_scripting
    if hasattr(original, "__deepcopy__"):
        body["__deepcopy__"] = _deepcopied_to(original)
    if issubclass(original, torch.fx.GraphModule):
        body["recompile"] = _recompiled_in(original)
    body |= {name: getattr(original, name) for name in ("__doc__", "__module__", "__qualname__")}
    try:
        return types.new_class(original.__name__, (original,), exec_body=lambda space: space.update(body))
    except Exception:  # an __init_subclass__ may want arguments
        bases = (_WithoutInitSubclass, original)
        return types.new_class(original.__name__, bases, exec_body=lambda space: space.update(body))


class _WithoutInitSubclass:
    def __init_subclass__(cls) -> None:
        pass


def _routed(original: Any, name: str) -> Callable[..., Any]:
    """A method of `original`, run under a route where its module has one."""
    function = getattr(original, name)

    @functools.wraps(function)
    def routed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _called(self, getattr(original, name), (self, *args), kwargs)

    # torch.compile keeps its graphs by code object, and gives up after a few: not all classes shall share one
    code: Any = routed
    code.__code__ = code.__code__.replace(co_name=name)
    return routed


def _recompiled_in(original: Any) -> Callable[..., Any]:
    """GraphModule.recompile, which writes into the class of the module."""

    def recompile(self: nn.Module) -> Any:
        routed = type(self)
        self.__class__ = original
        try:
            return original.recompile(self)
        finally:
            self.__class__ = routed

    return recompile


def _reduced_to(original: Any) -> Callable[..., Any]:
    """The __reduce_ex__ of a class that no pickle finds by its name."""

    def reduce(self: nn.Module, protocol: Any) -> Any:
        make, args, *state = original.__reduce_ex__(self, protocol)
        args = tuple(original if arg is type(self) else arg for arg in args)
        return _rebuilt, (make, args, _marks(self)), *state

    return reduce


def _rebuilt(make: Callable[..., Any], args: Any, marks: tuple[Any, ...]) -> Any:
    return _marked(make(*args), *marks)


def _deepcopied_to(original: Any) -> Callable[..., Any]:
    """The __deepcopy__ of a subclass of `original`, which copies in a way of its own, as torch.fx does."""

    def deepcopied(self: nn.Module, memo: dict[int, Any]) -> Any:
        return _marked(original.__deepcopy__(self, memo), *copy.deepcopy(_marks(self), memo))

    return deepcopied


Marks = tuple[frozenset[str], dict[str, Any]]  # its routed methods, and the attributes that route it


def _marks(module: nn.Module) -> Marks:
    """Returns what makes a copy of `module` a routed one."""
    return getattr(module, _METHODS), {name: vars(module)[name] for name in _MARKS if name in vars(module)}


def _marked(module: nn.Module, methods: frozenset[str], marks: dict[str, Any]) -> nn.Module:
    vars(module).update(marks)
    module.__class__ = _routed_class(original_class(module), methods)
    return module


def _call(module: nn.Module, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return _called(module, function, args, kwargs)


def _called(module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    if getattr(module, _REBUILDS, False) and can_rebuild():
        if not is_rebuilding():
            with rebuilding(getattr(module, _FIRST, None)):
                return _called(module, function, args, kwargs)
        uses = getattr(module, _FOLLOWED, None)
        if uses is not None and module.training:
            return run_followed(uses, _run, (module, function, args, kwargs), args)
    return _run(module, function, args, kwargs)


def _run(module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Calls `function` as part of the forward of `module`, which is looked at where that is to be done."""
    choice = getattr(module, CHOICE, None)
    if choice is not None:
        choice.follow(module)
    watch = getattr(module, WATCH, None)
    if watch is not None and module.training and not torch.compiler.is_compiling():
        return watch.run(module, function, args, kwargs)
    return run_routed(module, function, args, kwargs)


def run_routed(module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Calls `function` under the route of `module`, where it has one.

    torch's own attention drops in training alone, and has a fast path in evaluation without a route. A route
    that leads to torch's dropout is needed where another lies around; else it would slow nn.Dropout's model.
    """
    if not is_routed(module) or (isinstance(module, nn.MultiheadAttention) and not module.training):
        return function(*args, **kwargs)
    dropout, attention = routed_dropout(module), routed_attention(module)
    if dropout is None and attention is None and _is_beside_routes():
        return function(*args, **kwargs)
    turn = None if getattr(module, _BY_MODE, False) else key_turn(dropout, attention)
    if turn is None:
        return run_under(route_of(module), function, args, kwargs)
    return run_by_key(module, turn, function, args, kwargs)


def _is_beside_routes() -> bool:
    """Whether no routed forward is around in this thread, by a mode or by the key."""
    return not torch.compiler.is_compiling() and innermost_route() is None and is_key_off()


def run_by_key(module: nn.Module, turn: KeyTurn, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Calls `function` with the key on. (keyed_routes.py looks for the frame of this call.)

    An interrupt at any time leaves the key as it was: what was before is known here, and no call of Python
    comes before what turns it back.
    """
    set_route, on, before = turn
    try:
        set_route(on)
        return function(*args, **kwargs)
    finally:
        set_route(before)


def refuse_scripting(module: nn.Module) -> None:
    """Says why torch.jit.script cannot compile `module`. Raises RuntimeError."""
    raise RuntimeError(
        f"torch.jit.script cannot compile {type(module).__name__}, whose dropout is replaced by Python code: "
        "call replace_dropout(model, nn.Dropout) first, or use torch.compile"
    )


def _prepared_for_scripting(module: nn.Module) -> nn.Module:
    """Stands for `__prepare_scriptable__` of a module that a route may lie around."""
    watch = getattr(module, WATCH, None)
    if routed_dropout(module) or getattr(module, CHOICE, None) or (watch and watch.may_route):
        refuse_scripting(module)
    remove_route(module)
    return module


def is_routed(module: nn.Module) -> bool:
    """Returns whether the forward of `module` is routed."""
    return getattr(module, _ROUTED, False)


def needs_routed_class(module: nn.Module) -> bool:
    """Whether a forward of `module` does more than that of its original class."""
    noticing = getattr(module, CHOICE, None) is not None
    return is_routed(module) or getattr(module, _REBUILDS, False) or noticing


def route_of(module: nn.Module) -> Route:
    """What a mode would be in the forward of a routed module."""
    dropout, attention = routed_dropout(module), routed_attention(module)
    if can_rebuild():
        return Route(dropout, attention)
    parts = (dropout, attention and attention.dropout, *module._modules.values())
    if not any(getattr(part, "recompute", False) for part in parts):
        return Route(dropout, attention)
    # The forward that called this method may have a route already, which follows the probabilities of both.
    known = innermost_route()
    return (
        known
        if isinstance(known, RecomputingRoute) and known.module is module
        else RecomputingRoute(dropout, module, attention)
    )
