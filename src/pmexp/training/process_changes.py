"""Tells what somebody's code changes in the process outside of the run's model: functions and classes of
torch, transformers and pmexp, and settings that hold for all.

Such a change reaches whatever the process trains next, so that nothing else may be trained in it.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules import module as modules

from pmexp.errors import UserError
from pmexp.shown import first_five

# What is looked at, with what lies below, beside torch's own names and its Tensor.
_PLACES = (
    *("torch.nn.", "torch.optim.", "torch.autograd.", "torch.functional.", "torch.utils.checkpoint."),
    *("transformers.", "pmexp."),
)
# What it puts in the place of methods of modules and optimizers does the same beside its own books.
_COMPILER = f"{torch.__path__[0]}/_dynamo/"
_METHODS = (property, staticmethod, classmethod)
_PLAIN = (bool, int, float, str, tuple)
log = logging.getLogger(__name__)

_SETTINGS: dict[str, Callable[[], object]] = {
    "torch.get_default_dtype()": torch.get_default_dtype,
    "torch.get_default_device()": lambda: str(torch.get_default_device()),
    "torch.get_num_threads()": torch.get_num_threads,
    "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision,
    "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled,
    "torch.is_grad_enabled()": torch.is_grad_enabled,
    "torch.is_anomaly_enabled()": torch.is_anomaly_enabled,
    "torch.is_autocast_enabled('cpu')": lambda: torch.is_autocast_enabled("cpu"),
    "torch.is_autocast_enabled('cuda')": lambda: torch.is_autocast_enabled("cuda"),
    "torch.backends.mkldnn.enabled": lambda: torch._C._get_mkldnn_enabled(),
    "torch.backends.cudnn.enabled": lambda: torch.backends.cudnn.enabled,
    "torch.backends.cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
    "torch.backends.cudnn.deterministic": lambda: torch.backends.cudnn.deterministic,
    "torch.backends.cudnn.allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
    "torch.backends.cuda.flash_sdp_enabled()": torch.backends.cuda.flash_sdp_enabled,
    "torch.backends.cuda.mem_efficient_sdp_enabled()": torch.backends.cuda.mem_efficient_sdp_enabled,
    "torch.backends.cuda.math_sdp_enabled()": torch.backends.cuda.math_sdp_enabled,
    "the hooks of all modules before a forward": lambda: tuple(modules._global_forward_pre_hooks.values()),
    "the hooks of all modules after a forward": lambda: tuple(modules._global_forward_hooks.values()),
    "the hooks of all modules in backward": lambda: tuple(modules._global_backward_hooks.values()),
}
_Seen = dict[str, dict[Any, Any]]  # what a module, a class or a table has by its names, by where that is
_Changed = dict[tuple[str, Any], Any]  # what is there now, by where and by its name
_left: _Changed = {}  # what code of an earlier run has put in the place of something else
_left_by = ""  # the import paths of that code


class ProcessChanges:
    """Compares the process with what it was when a run began that has code of somebody's own."""

    def __init__(self, code: Sequence[str] = ()) -> None:
        """code: import paths; without any nothing is looked at.

        Raises UserError where what code of an earlier run has changed is still so.
        """
        _refuse_what_is_left()
        self.code = code
        self._before = _look() if code else {}

    def look_again(self) -> None:
        """Has modules that were imported since count as they are now."""
        if self.code:
            self._before = _look() | self._before

    def said(self) -> str:
        """Says what is changed now; empty where nothing is."""
        return _named(self._changed())

    @contextmanager
    def kept_in_mind(self) -> Iterator[None]:
        """Has what is changed at the end, however that comes, be told and known to the runs that follow."""
        global _left_by
        try:
            yield
        finally:
            changed = self._changed()
            if changed.keys() - _left.keys():
                log.warning("%s for the whole process; nothing else is trained in it", _named(changed))
                _left.update(changed)
                _left_by = ", ".join(self.code)

    def _changed(self) -> _Changed:
        now = _look() if self.code else {}
        return {
            (place, name): now[place].get(name)
            for place, names in self._before.items()
            if place in now
            for name in _others(names, now[place])
            if _differs(place, name, names, now)
        }


def _refuse_what_is_left() -> None:
    if not _left:
        return
    now = _look()
    still = {key: value for key, value in _left.items() if _is_same(now.get(key[0], {}).get(key[1]), value)}
    if still:
        raise UserError(
            f"{_left_by}: {_named(still)} in this process, where an earlier run had it; start this run in a "
            "process of its own, as each command and each run of a sweep is"
        )
    _left.clear()


def _named(changed: Iterable[tuple[str, Any]]) -> str:
    names = sorted({f"{place}.{name}" if place else name for place, name in changed})
    return f"code of one's own has changed {first_five(names)}" if names else ""


def _others(before: dict[Any, Any], now: dict[Any, Any]) -> list[Any]:
    """The names that mean another object now, or none."""
    return [
        *(name for name, value in before.items() if now.get(name) is not value),
        *(now.keys() - before.keys()),
    ]


def _differs(place: str, name: Any, names: dict[Any, Any], now: _Seen) -> bool:
    """Whether another object by a name is another function, class or setting, by which others may go."""
    old, new = names[name] if name in names else _inherited(place, name, now), now[place].get(name)
    is_code = callable(old) or isinstance(old, _METHODS)
    is_constant = isinstance(old, _PLAIN) and _class_at(place, now) is not None  # modules count and cache
    if place and not (is_code or is_constant):
        return False
    # What torch itself wraps, as it does the step of an optimizer and names that torch._dynamo knows.
    wrapped = getattr(new, "__wrapped__", None) is old and _is_of(new, torch.__path__[0])
    return not (_is_same(old, new) or wrapped or _is_of(new, _COMPILER))


def _is_same(old: object, new: object) -> bool:
    return old is new or (isinstance(old, _PLAIN) and old == new)


def _inherited(place: str, name: Any, now: _Seen) -> Any:
    """Returns what a class inherits by the name of an attribute of its own, None where there is nothing."""
    cls = _class_at(place, now)
    bases = cls.__mro__[1:] if cls else ()
    return next((vars(base)[name] for base in bases if name in vars(base)), None)


def _class_at(place: str, now: _Seen) -> type | None:
    module, _, name = place.rpartition(".")
    cls = now.get(module, {}).get(name)
    return cls if isinstance(cls, type) else None


def _is_of(function: object, folder: str) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(folder)


def _look() -> _Seen:
    """What the process has now, by place and name; the settings are at no place."""
    seen: _Seen = {"": {name: read() for name, read in _SETTINGS.items()}}
    for place, module in list(sys.modules.items()):
        if place != "torch" and not f"{place}.".startswith(_PLACES):
            continue
        seen[place] = names = dict(vars(module))
        for name, value in names.items():
            kind = type(value)  # isinstance would ask lazy objects for their class, which imports
            if issubclass(kind, type):
                if value.__module__ == place and value.__name__ == name:
                    seen[f"{place}.{name}"] = dict(vars(value))
            elif issubclass(kind, dict):
                seen[f"{place}.{name}"] = dict(dict.items(value))
            elif kind.__module__ == place and issubclass(kind, MutableMapping):  # kernels by name
                seen[f"{place}.{name}"] = dict(value)
    return seen
