"""Says in one line which form a key takes, where another was typed or stands in a file. Imports no torch."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from pmexp.command.schema import group_of, takes_null, type_at
from pmexp.command_line import allowed_values
from pmexp.errors import UserError

_WORDS = {str: "text", int: "whole number", float: "number", bool: "switch"}
_EXAMPLES = {str: "word", int: "3", float: "0.5", bool: "true"}
Write = Callable[[str, str], str]


def typed(key: str, value: str) -> str:
    """Returns how a key is given a value on a shell's command line."""
    return shlex.quote(f"{key}={value}")


def in_file(key: str, value: str) -> str:
    """Returns how a key is given a value in a YAML file of its group."""
    return f"{key.rpartition('.')[2]}: {value}"


def check_shape(where: str, key: str, value: Any, write: Write = typed) -> None:
    """Raises UserError where a list, a mapping, a single value or null stands in the place of another of
    them, also within a mapping. What refers to another key is left to OmegaConf.

    where: what was typed, or the file. key: dotted, of a run. write: how the right form is shown.
    """
    declared = type_at(key)
    if isinstance(value, Mapping):
        for name, one in value.items():
            check_shape(where, f"{key}.{name}", one, write)
    if declared in (None, Any) or (isinstance(value, str) and ("${" in value or value == "???")):
        return
    if group_of(key) and not isinstance(value, Mapping):
        return  # it names options
    may_be_null = takes_null(key) or is_dataclass(declared)
    if not (may_be_null if value is None else _fits(declared, value)):
        said = f"{key} takes {_described(declared)}; {_remedy(key, declared, value, write)}"
        raise UserError(f"{where.lstrip('+')}: {said}")


def _fits(declared: Any, value: Any) -> bool:
    if declared is Any:
        return True
    if get_origin(declared) is list:
        (item,) = get_args(declared)
        return isinstance(value, list) and all(one is not None and _fits(item, one) for one in value)
    if get_origin(declared) is dict or is_dataclass(declared):
        return isinstance(value, Mapping)
    if isinstance(value, (list, Mapping)):
        return False
    return not (issubclass(declared, Enum) and isinstance(value, float))


def _described(declared: Any) -> str:
    if get_origin(declared) is list:
        (item,) = get_args(declared)
        return "a list" if item is Any else f"a list of {_WORDS.get(item, 'name')}s"
    if get_origin(declared) is dict:
        return "a mapping"
    if is_dataclass(declared):
        return "keys below it"
    return f"one {_WORDS.get(declared, 'name')}"


def _remedy(key: str, declared: Any, value: Any, write: Write) -> str:
    """Says how a value of this form is written; a single one that was given stands in it."""
    if is_dataclass(declared):
        return f"set {key}.KEY"
    if get_origin(declared) is dict:
        return f"write {write(key, '{name: value}')}"
    if get_origin(declared) is list:
        one = value if isinstance(value, (str, int, float)) and value != "" else _example(*get_args(declared))
        return f"write {write(key, f'[{one}]')}"
    if issubclass(declared, Enum):
        return allowed_values("", declared.__members__)
    return f"write {write(key, _example(declared))}, or leave it out"


def _example(declared: Any) -> str:
    is_name = isinstance(declared, type) and issubclass(declared, Enum)
    return next(iter(declared.__members__)) if is_name else _EXAMPLES.get(declared, "{name: value}")
