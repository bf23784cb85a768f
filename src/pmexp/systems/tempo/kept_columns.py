"""Finds the columns that a LayerNorm's output says too little of, for all norms of a model at once.

How many there are decides what forward saves, so the host has to know: it waits for the device. Weights move
between two forwards of a model and not within one, so one wait serves all its norms; where columns are found,
a second one follows at once.
"""

import weakref
from bisect import bisect_left
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from pmexp.packed_dropout import ops  # noqa: F401  it makes the library pmexp

RATIO = 4.0  # a column is kept where |bias| is more than so many times |weight|

_ColumnsOf = dict[nn.LayerNorm, Tensor]


class ColumnSearch:
    """Answers the norms of one model, those with it as their `search`, which columns they keep.

    An answer holds from the beginning of a forward of `model` to that of the next one, recomputation in
    backward included. A norm that is called by itself, and one whose parameters are no plain ones when the
    first norm asks (FSDP's shards), gets its own answer at each call. A copy starts without answers.
    """

    def __init__(self) -> None:
        self._model: weakref.ref[nn.Module] | None = None
        self._columns: dict[tuple[torch.dtype, torch.device], _ColumnsOf] = {}
        self._inside = False

    def follow(self, model: nn.Module) -> None:
        """Watches each forward of `model` from now on, by hooks."""
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end, always_call=True)

    def columns(self, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
        """Returns the columns of `norm`, whose output has `dtype`; see kept_columns."""
        if self._model is not None and (self._inside or torch._C._current_graph_task_id() != -1):
            key = (dtype, norm.weight.device)
            if key not in self._columns:
                self._columns[key] = self._search_all(*key)
            if norm in self._columns[key]:
                return self._columns[key][norm]
        return cast(Tensor, kept_columns(norm.weight, norm.bias, dtype))

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return ColumnSearch, ()

    def _begin(self, model: nn.Module, inputs: Any) -> None:
        if not torch.compiler.is_compiling():
            self._model, self._inside = weakref.ref(model), True
            self._columns.clear()

    def _end(self, model: nn.Module, inputs: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._inside = False

    def _search_all(self, dtype: torch.dtype, device: torch.device) -> _ColumnsOf:
        model = self._model() if self._model else None
        modules = [] if model is None else model.modules()
        norms = [
            norm
            for norm in modules
            if isinstance(norm, nn.LayerNorm)
            and vars(norm).get("search") is self
            and _is_plain(norm.weight, device)
            and (norm.bias is None or _is_plain(norm.bias, device))
        ]
        if not norms:
            return {}
        weights = torch.cat([norm.weight.reshape(-1) for norm in norms])
        biases = [torch.zeros_like(norm.weight) if norm.bias is None else norm.bias for norm in norms]
        places = kept_columns(weights, torch.cat([bias.reshape(-1) for bias in biases]), dtype)
        on_host = places.tolist() if places.numel() else []
        ends = list(accumulate(norm.weight.numel() for norm in norms))
        columns_of = {}
        for norm, start, end in zip(norms, [0, *ends], ends, strict=False):
            columns_of[norm] = places[bisect_left(on_host, start) : bisect_left(on_host, end)] - start
        return columns_of


def _is_plain(parameter: Tensor, device: torch.device) -> bool:
    return type(parameter) is nn.Parameter and parameter.device == device


_library = torch.library.Library("pmexp", "FRAGMENT")
_library.define("kept_columns(Tensor weight, Tensor? bias, ScalarType dtype) -> Tensor")


@torch.library.impl(_library, "kept_columns", "CompositeExplicitAutograd")
def _kept_columns(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Columns of an output of `dtype` that say too little of their normalised values: (n,) int64, rising."""
    tiny = torch.finfo(dtype).tiny  # below it a dtype's steps are no longer relative
    size = torch.full_like(weight, tiny) if bias is None else bias.abs().clamp_(min=tiny)
    return (size > RATIO * weight.abs()).reshape(-1).nonzero().reshape(-1)


@torch.library.register_fake("pmexp::kept_columns")
def _kept_columns_fake(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Returns no columns: a fake weight has no values, and counts as if none were small."""
    return weight.new_empty((0,), dtype=torch.int64)


kept_columns = torch.ops.pmexp.kept_columns.default
