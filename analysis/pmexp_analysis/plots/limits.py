"""The largest batch, or context, that fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pmexp_analysis.plots.looks import Style


@dataclass(frozen=True)
class Fit:
    """The largest value that fits, 0 where nothing tried does. `at_least`: the largest tried still fit."""

    variant: str
    largest: float
    at_least: bool


def largest(panels: Mapping[str, Sequence[Fit]], baseline: str, looks: Mapping[str, Style]) -> Figure:
    """A panel a key of `panels` (the text of its axis, as "largest batch [sequences]"), a bar a variant.

    At each bar stands the value and its factor over the baseline's, bounded ("at least") where either is.
    """
    raise NotImplementedError
