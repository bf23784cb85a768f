"""Mappings that are nearly alike, such as the settings of a sweep's runs, kept as one and what differs."""

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class _Kept(NamedTuple):
    """The first mapping of its keys: its values as they were told, and itself cleaned."""

    values: list[Any]
    cleaned: dict[str, Any]


class Shared:
    """Keeps the first mapping of each set of keys; of every later one only what it has otherwise."""

    def __init__(self, clean: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """clean: applied to what is kept; what is kept once is cleaned once."""
        self._clean = clean
        self._first: dict[tuple[str, ...], _Kept] = {}

    def of(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a mapping equal to the cleaned `told`, which shares memory with those of the same keys."""
        keys = tuple(told)
        if (first := self._first.get(keys)) is None:
            first = self._first[keys] = _Kept(list(told.values()), self._clean(dict(told)))
        differing = [
            key
            for key, value, kept in zip(keys, told.values(), first.values, strict=True)
            if value is not kept
            and (value != kept or type(value) is not type(kept))  # 1, 1.0 and True differ
        ]
        if not differing:
            return first.cleaned
        return ChainMap(self._clean({key: told[key] for key in differing}), first.cleaned)
