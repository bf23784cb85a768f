"""Memory by what it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Stack:
    """A variant's bytes by category, and its measured peak (bytes; None where it was not measured)."""

    variant: str
    parts: Mapping[str, float]
    peak: float | None


def breakdown(stacks: Sequence[Stack], categories: Sequence[str]) -> Figure:
    """A bar a variant, its parts in the order of `categories` (one that is absent is 0), the peak marked.

    Raises KeyError for a part that is not among `categories`.
    """
    raise NotImplementedError
