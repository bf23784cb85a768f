"""Gives one meaning one value: numbers, folders and empty texts are kept alike, however they were typed."""

import os
from dataclasses import fields, is_dataclass
from typing import Any

from pmexp.config.checks import check_no_credential
from pmexp.errors import UserError

_DIGITS = 15  # a float keeps every decimal number of so many; what arithmetic adds to one lies behind them


def real_path(key: str, typed: str) -> str:
    """Returns the absolute path without links, `~` and `..`; it need not exist. Raises UserError for a text
    that names nothing, and for an address with a credential, which could not be recognised in a path."""
    check_no_credential(key, typed)
    if not typed.strip() or "\0" in typed:
        raise UserError(f"{key}: {typed!r} names no folder; give one, or leave the key out")
    return os.path.realpath(os.path.expanduser(typed))


def canonicalise(group: Any, prefix: str = "") -> None:
    """Rounds every float below `group`, a dataclass: 0.1 + 0.2 is 0.3, and -0.0 is 0.0.

    Raises UserError for an optional text that is empty: an unset variable of a shell is no choice of null.
    """
    for field in fields(group):
        value, key = getattr(group, field.name), prefix + field.name
        if value == "" and field.type == (str | None):
            raise UserError(f"{key}: is empty; give a value, or null for none")
        if is_dataclass(value):
            canonicalise(value, f"{key}.")
        elif isinstance(value, (float, dict, list)):
            setattr(group, field.name, _rounded(value))


def as_one_number(value: Any) -> Any:
    """Returns 1 for 1.0, also inside of lists and mappings; meant for values without a declared type."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: as_one_number(item) for key, item in value.items()}
    return [as_one_number(item) for item in value] if isinstance(value, list) else value


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") + 0.0
    if is_dataclass(value):
        canonicalise(value)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
