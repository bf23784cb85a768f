"""A metric over two settings: a heat map."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pmexp_analysis.plots.estimate import Estimate


@dataclass(frozen=True)
class Cell:
    """The metric at one pair of settings; where `value` is None, `why` says why in a word."""

    across: float
    up: float
    value: Estimate | None
    why: str = ""


def heat_map(
    cells: Sequence[Cell],
    across: str,
    up: str,
    metric: str,
    unit: str,
    direction: str,
    chosen: tuple[float, float] | None,
) -> Figure:
    """The grid of all settings that occur, mean and error in each cell; what is missing is hatched and named.

    `across` and `up` label the two settings; the cell `chosen` = (across, up) is ringed.
    """
    raise NotImplementedError
