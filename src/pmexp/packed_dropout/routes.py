"""What F.dropout means while a module's forward runs.

A routed module has a child `routed_dropout` and a pair of forward hooks. Between them stands a
TorchFunctionMode, entered anew by each forward: a checkpoint's recomputation takes it as well, torch.compile
traces through it, and no other model in the process is touched.
"""

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
_ROUTE = "_dropout_route"
# Of the hooks, in every module the same and out of the way of torch's running numbers: a compiled graph is
# guarded by the numbers of its hooks, and equal layers would each be compiled anew until torch gives up.
_HOOK_ID = -1

_CASTS = (Tensor.to, Tensor.type, Tensor.type_as)
_SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax)
_VIEWS = (Tensor.view, Tensor.reshape)
_PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)


def add_route(module: nn.Module) -> None:
    """Routes F.dropout in the forward of `module` to its child; without one to torch's own."""
    module._forward_pre_hooks[_HOOK_ID] = _enter_route
    module._forward_hooks[_HOOK_ID] = _leave_route
    module._forward_hooks_always_called[_HOOK_ID] = True


def _enter_route(module: nn.Module, args: Any) -> None:
    child = module._modules.get(CHILD)
    dropouts = _recomputing_dropouts(module)
    route = _RecomputingRoute(child) if dropouts else _Route(child)
    for dropout in dropouts:
        object.__setattr__(dropout, "route", route)
    object.__setattr__(module, _ROUTE, route)
    route.__enter__()


def _leave_route(module: nn.Module, args: Any, output: Any) -> None:
    route = module.__dict__.pop(_ROUTE, None)
    if route is not None:
        route.__exit__(None, None, None)
    for dropout in _recomputing_dropouts(module):
        object.__setattr__(dropout, "route", None)


def _recomputing_dropouts(module: nn.Module) -> list[nn.Module]:
    return [
        part for part in module._modules.values() if part is not None and getattr(part, "recompute", False)
    ]


class _Route(TorchFunctionMode):
    """Sends F.dropout to `dropout.drop`; without one to torch's, whatever route lies around."""

    def __init__(self, dropout: nn.Module | None) -> None:
        super().__init__()
        self.drop = _stock if dropout is None else cast(Any, dropout).drop

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (self.drop if func is F.dropout else func)(*args, **(kwargs or {}))


_MadeOf = tuple[Tensor, Tensor, float, int, Rng]  # probabilities, packed mask, p, bits, rng


class _RecomputingRoute(_Route):
    """Where dropped probabilities are multiplied with values, saves what they are made of in their place.

    Follows softmax -> cast -> dropout -> matmul by the identity of the tensors. Code that takes another way
    gets the plain packed dropout.
    """

    def __init__(self, dropout: nn.Module | None) -> None:
        super().__init__(dropout)
        self.softmax: Tensor | None = None  # the last softmax's output
        self.probs: Tensor | None = None  # that, or its cast
        self.dropped: Tensor | None = None
        self.made_of: _MadeOf | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self.drop(*args, **kwargs)
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


def _stock(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.dropout_(input, p, training) if inplace else torch.dropout(input, p, training)
