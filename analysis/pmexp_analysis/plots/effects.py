"""What each variant changes against the baseline, with intervals: a forest plot."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Effect:
    """A row of the forest plot: the mean difference to the baseline, its interval, in the metric's own unit.

    `low` and `high` are None where there is no interval (one seed). `margin` is half the width of the zone in
    which a difference counts as none, None for no zone. `verdict` is printed as it is; "identical" draws a
    diamond at zero, "better" and "worse" have colours of their own.
    """

    metric: str
    unit: str
    direction: str
    label: str
    estimate: float
    low: float | None
    high: float | None
    margin: float | None
    verdict: str


def forest(effects: Sequence[Effect]) -> Figure:
    """A panel a metric, in the order they come; a row an effect: estimate, interval, zone, verdict.

    Intervals that leave the axis end in an arrow; the numbers stand at the right.
    """
    raise NotImplementedError
