"""Checks that a table has an entry for every name of the configuration that it stands for."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

Name = TypeVar("Name", bound=Enum)
Entry = TypeVar("Entry")


def complete(table: Mapping[Name, Entry], names: Iterable[Name]) -> Mapping[Name, Entry]:
    """Returns `table`. Raises LookupError where it lacks one of `names`: a run would be named after something
    that it does not have."""
    if missing := [str(name) for name in names if name not in table]:
        raise LookupError(f"nothing stands behind {', '.join(missing)} of the configuration; add it")
    return table
