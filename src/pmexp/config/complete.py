"""Tables that say what stands behind the names of the configuration: a table is complete, or none."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

Name = TypeVar("Name", bound=Enum)
What = TypeVar("What")


def complete(table: Mapping[Name, What], names: Iterable[Name]) -> Mapping[Name, What]:
    """Returns `table`. Raises LookupError where it lacks one of `names`: a run would be named after something
    that it does not have."""
    if missing := [str(name) for name in names if name not in table]:
        raise LookupError(f"nothing stands behind {', '.join(missing)} of the configuration; add it")
    return table
