"""Lets the ledger see what somebody's own dropout and somebody's own saved-tensor hooks keep for backward."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pmexp.packed_dropout.routed_modules import routed_attention, routed_dropout

_KNOWN = ("torch.", "pmexp.")  # their dropouts drop by functions that the ledger knows
_CHAINED = ("pmexp.", "torch.utils.checkpoint")  # their hooks hand on what they save, or save nothing


def own_dropouts(model: nn.Module) -> set[type[nn.Module]]:
    """The classes of somebody's own among the dropouts of `model`, those of its routes included."""
    dropouts: set[nn.Module | None] = set()
    for module in model.modules():
        attention = routed_attention(module)
        dropouts |= {module, routed_dropout(module), attention.dropout if attention else None}
    classes = {type(module) for module in dropouts if isinstance(module, nn.Dropout)}
    return {cls for cls in classes if not f"{cls.__module__}.".startswith(_KNOWN)}


@contextmanager
def entered(classes: set[type[nn.Module]], run: Callable[..., Any]) -> Iterator[None]:
    """Has each call of `forward` and `drop` of the classes go through ``run(method, module, *args)``.

    Other threads see it as well.
    """
    with ExitStack() as restored:
        for cls in classes:
            for name in ("forward", "drop"):
                if method := getattr(cls, name, None):
                    restored.callback(_put_back, cls, name, vars(cls).get(name))
                    setattr(cls, name, _through(run, method))
        yield


@contextmanager
def hooks_seen(count: Callable[[Any], None]) -> Iterator[None]:
    """Hands what somebody's saved-tensor hooks keep in the place of each tensor to `count`, in this thread.

    Hooks that are entered inside of others are the only ones that autograd asks.
    """
    enter, here = saved_tensors_hooks.__enter__, get_ident()

    def seen(hooks: saved_tensors_hooks) -> None:
        pack = hooks.pack_hook
        if get_ident() == here and not f"{getattr(pack, '__module__', '')}.".startswith(_CHAINED):
            hooks.pack_hook = lambda tensor: _counted(pack(tensor), count)
        try:
            enter(hooks)
        finally:
            hooks.pack_hook = pack

    saved_tensors_hooks.__enter__ = seen  # type: ignore[method-assign]
    try:
        yield
    finally:
        saved_tensors_hooks.__enter__ = enter  # type: ignore[method-assign]


def _counted(packed: Any, count: Callable[[Any], None]) -> Any:
    for kept in _leaves(packed, set()):
        count(kept)
    return packed


def _leaves(value: Any, seen: set[int]) -> Iterator[Any]:
    """The tensors, arrays and bytes in what a hook has made of a tensor."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (Tensor, bytes, bytearray)) or hasattr(value, "nbytes"):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each, seen)
    elif hasattr(value, "__dict__"):
        yield from _leaves(vars(value), seen)


def _through(run: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        return run(method, *args, **kwargs)

    return called


def _put_back(cls: type[nn.Module], name: str, own: Any) -> None:
    if own is None:
        delattr(cls, name)
    else:
        setattr(cls, name, own)
