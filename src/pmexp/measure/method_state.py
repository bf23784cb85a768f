"""Finds the tensors and optimizers that somebody's own method keeps from step to step, wherever it has them.

An optimizer's `state` is not the only place: optimizers that update during backward lie in hooks of
parameters, projections in objects, averages of weights in lists. What is looked through: attributes,
containers, closures, hooks of parameters and modules, and the globals that somebody's own functions name.
"""

import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_NO_CONTENT = (str, bytes, int, float, complex, type, ModuleType, weakref.ref, torch.dtype, torch.device)
_NOT_OWN = ("torch", "pmexp", "transformers", "peft", "numpy")  # whose functions keep nothing for a method


def tensors_kept(roots: Iterable[object], without: Iterable[Tensor] = ()) -> list[Tensor]:
    """Returns the tensors that `roots` lead to, each once, but for `without`."""
    left_out = {id(tensor) for tensor in without}
    tensors = (value for value in _reached(roots) if isinstance(value, Tensor))
    return [tensor for tensor in tensors if id(tensor) not in left_out]


def optimizers_kept(roots: Iterable[object], without: Optimizer) -> list[Optimizer]:
    """Returns the optimizers that `roots` lead to, each once, but for `without`."""
    return [each for each in _reached(roots) if isinstance(each, Optimizer) and each is not without]


def _reached(roots: Iterable[object]) -> list[object]:
    looked_at: dict[int, object] = {}  # which keeps them, so that no other object gets their number
    waiting = deque(roots)
    while waiting:
        value = waiting.popleft()
        if value is None or isinstance(value, _NO_CONTENT) or id(value) in looked_at:
            continue
        looked_at[id(value)] = value
        waiting.extend(_contents(value))
    return list(looked_at.values())


def in_slots(value: object) -> dict[str, object]:
    """Returns what an object keeps in the `__slots__` of its classes, by name."""
    slots = [cls.__dict__.get("__slots__", ()) for cls in type(value).__mro__]
    names = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def hooks_of(module: nn.Module) -> Iterator[object]:
    """Yields the hooks of a model's parameters and modules."""
    for parameter in module.parameters():
        yield from (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values()
        yield from (parameter._backward_hooks or {}).values()
    for each in module.modules():
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            yield from getattr(each, name).values()


def _contents(value: object) -> Iterator[object]:
    if isinstance(value, Tensor | nn.Module):
        return
    if isinstance(value, Mapping):
        yield from (*value.keys(), *value.values())
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from value
    elif isinstance(value, partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif not type(value).__module__.startswith("pmexp."):
        yield from (*getattr(value, "__dict__", {}).values(), *in_slots(value).values())


def _of_function(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # nothing was put into it yet
            continue
    yield from (function.__defaults__, function.__kwdefaults__)
    if (function.__module__ or "").partition(".")[0] not in _NOT_OWN:
        yield from (function.__globals__.get(name) for name in function.__code__.co_names)
