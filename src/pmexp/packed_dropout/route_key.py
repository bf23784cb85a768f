"""Runs forwards in which F.dropout means packed dropout by a key of torch's dispatcher, without a mode.

A mode takes a microsecond for each function of torch that a forward calls. The key, which native/routes.h
registers, takes none but those that drop, and only in the thread that runs such a forward. What it cannot
serve while it is on, such as a tensor that is not plain, it hands to Python (keyed_routes.py), which does
what a mode would do. Where a mode is needed from the beginning a forward has one: see `key_turn`.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

from pmexp.packed_dropout import native

KEY = "TESTING_ONLY_GenericMode"
OPTIONS = (
    "key_options"  # an attribute of a method `drop` that takes its module and says what the key shall do
)
_NONE, _STOCK, BY_PYTHON, _REFUSED = 0, -1, -2, -3  # as in native/routes.h


def drawn_by_key(bits: int, cache_unpacked: bool) -> int:
    """What the key shall do where it draws as packed_dropout does with these options and rng="philox"."""
    return bits * 2 + cache_unpacked


class KeyTurn(NamedTuple):
    """How to turn the key on for a forward: `set_route(on)` before it, `set_route(before)` behind it.

    set_route: a function of C, before which no Ctrl-C comes in between as before one of Python.
    """

    set_route: Callable[[int], int]
    on: int
    before: int


def key_turn(dropout: Any, attention: Any) -> KeyTurn | None:
    """Returns how to turn the key on for a forward; None where that needs a mode.

    It does where anything traces, transforms or looks on, where a mode is around already, without the native
    library, and once a function was given to torch.compile: its graphs depend on modes, and not on keys.

    dropout, attention: those of the forward's route.
    """
    if (
        torch.compiler.is_compiling()
        or not native.serve_any_device()
        or forward_ad._current_level >= 0
        or is_fx_symbolic_tracing()
        or _is_anything_compiled()
    ):
        return None
    options = _STOCK if attention is None else BY_PYTHON
    if dropout is not None:
        options_of = getattr(dropout.drop, OPTIONS, None)
        options = BY_PYTHON if options_of is None else options_of(dropout)
    route_now, set_route = _functions()
    before = route_now()
    return None if before == _REFUSED else KeyTurn(set_route, options, before)


def is_key_off() -> bool:
    """Whether no routed forward of this thread has the key on; False where what looks on hides it."""
    return not native.serve_any_device() or _functions()[0]() == _NONE


def run_beside(function: Callable[..., Any], /, *args: Any) -> Any:
    """Calls `function` with the key off."""
    if not native.is_loaded():
        return function(*args)
    _, set_route = _functions()
    before = set_route(_NONE)
    try:
        return function(*args)
    finally:
        set_route(before)


def _is_anything_compiled() -> bool:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and bool(dynamo.always_optimize_code_objects.values)


@cache
def _functions() -> tuple[Callable[[], int], Callable[[int], int]]:
    """Functions route_now and set_route of native/routes.h."""
    _let_higher_order_operators_pass()
    route_now, set_route = torch.ops.pmexp.route_functions()
    number = ctypes.c_int64
    return ctypes.PYFUNCTYPE(number)(route_now), ctypes.PYFUNCTYPE(number, number)(set_route)


def _let_higher_order_operators_pass() -> None:
    """Has the operators that torch dispatches in Python pass the key by, as the library has all others."""
    key: Any = torch._C._parse_dispatch_key(KEY)
    torch._ops._HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS.append(key)  # for those that come later
    for operator in torch._ops._higher_order_ops.values():
        operator.fallthrough(key)
