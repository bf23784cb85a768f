"""Does in Python what the key of route_key.py cannot do in C++, as a mode would do it."""

import sys
from functools import partial
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

from pmexp.packed_dropout.attention import drops
from pmexp.packed_dropout.route_key import KEY, run_beside
from pmexp.packed_dropout.routed_modules import route_of, run_by_key
from pmexp.packed_dropout.routes import Route, is_of_checkpoint, stock_attention, stock_dropout

_library = torch.library.Library("pmexp", "FRAGMENT")
_library.define("dropout_of_route(Tensor x, float p, bool train, bool inplace) -> Tensor")
_library.define(
    "attention_of_route(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0,"
    " bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor"
)


@torch.library.impl(_library, "dropout_of_route", KEY)
def _drop(x: Tensor, p: float, train: bool, inplace: bool) -> Tensor:
    route = _innermost_route()
    drop = stock_dropout if route is None else route.drop_as_chosen
    return cast(Tensor, run_beside(drop, x, p, train, inplace))


@torch.library.impl(_library, "attention_of_route", KEY)
def _attend(*args: Any, **kwargs: Any) -> Tensor:
    route = _innermost_route()
    attend = stock_attention
    if route is not None and drops(*args, **kwargs) and not any(map(_has_own_functions, args)):
        attend = route.attend
    return cast(Tensor, run_beside(partial(attend, **kwargs), *args))


def _has_own_functions(value: Any) -> bool:
    """Whether a tensor is of a class that has an attention of its own, as a mask may be."""
    kind = type(value)
    if kind is Tensor or not isinstance(value, Tensor):
        return False
    return kind.__torch_function__ is not torch._C._disabled_torch_function_impl


def _innermost_route() -> Route | None:
    """The route of the forward that runs, found on the stack; None behind a checkpoint or a backward.

    The checkpoint will call its function again, and not the forward. No mode reaches into a backward.
    A greenlet has no such frame where it runs while another one's forward waits.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame and frame.f_code is not run_by_key.__code__:
        if is_of_checkpoint(frame) or frame.f_code is _engine_run_backward.__code__:
            return None
        frame = frame.f_back
    return None if frame is None else route_of(frame.f_locals["module"])
