"""Runs forwards in which F.dropout means packed dropout by a key of torch's dispatcher, without a mode.

A mode takes a microsecond for each function of torch that a forward calls. The key, which native/routes.h
registers, takes none but those that drop, and only in the thread that runs such a forward. What it cannot
serve while it is on, such as a tensor that is not plain, it hands to Python (keyed_routes.py), which does
what a mode would do. Where a mode is needed from the beginning a forward has one: see `key_options`.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad

from pmexp.packed_dropout import native

KEY = "TESTING_ONLY_GenericMode"
OPTIONS = "key_options"  # an attribute of a method `drop` that takes its module and says what the key shall do
_NONE, _STOCK, BY_PYTHON = 0, -1, -2  # as in native/routes.h
# Looked up once: to ask for each of them by its modules takes as long as its answer.
_transforms_active = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_tracing_state = torch._C._get_tracing_state


def drawn_by_key(bits: int, cache_unpacked: bool) -> int:
    """What the key shall do where it draws as packed_dropout does with these options and rng="philox"."""
    return bits * 2 + cache_unpacked


def key_options(dropout: Any, attention: Any) -> int | None:
    """What the key shall do in a forward whose F.dropout means `dropout`; None where a mode has to be there.

    That is where anything traces, transforms or looks on, where a mode is around already, without the native
    library, and once a function was given to torch.compile: its graphs depend on modes, and not on keys.

    dropout, attention: those of a route.
    """
    if (
        torch.compiler.is_compiling()
        or native.calls_on_cpu() is None
        or _function_modes()
        or _dispatch_modes()
        or _transforms_active()
        or forward_ad._current_level >= 0
        or _tracing_state()
        or _is_anything_compiled()
    ):
        return None
    if dropout is None:
        return _STOCK if attention is None else BY_PYTHON
    options_of = getattr(dropout.drop, OPTIONS, None)
    chosen: int | None = None if options_of is None else options_of(dropout)
    return chosen


def _is_anything_compiled() -> bool:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and bool(dynamo.always_optimize_code_objects.values)


def run_by_key(
    options: int,
    route_of: Callable[[nn.Module], Any],
    module: nn.Module,
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
) -> Any:
    """Calls `function`, a forward of `module`, with the key on.

    route_of: makes the route of `module`, for what is handed to Python.
    """
    set_route = _set_route()
    before = set_route(options)
    try:
        return function(*args, **kwargs)
    finally:
        set_route(before)


def run_beside(function: Callable[..., Any], /, *args: Any) -> Any:
    """Calls `function` with the key off."""
    if not native.is_loaded():
        return function(*args)
    set_route = _set_route()
    before = set_route(_NONE)
    try:
        return function(*args)
    finally:
        set_route(before)


@cache
def _set_route() -> Any:
    return torch.ops.pmexp.set_route.default._op
