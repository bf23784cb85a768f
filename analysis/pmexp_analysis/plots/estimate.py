"""A mean with its error, as the figures take it and draw it."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from pmexp_analysis.numbers.cells import scaled

Estimate = tuple[float, float]
"""(mean, standard deviation or 0) in the metric's own unit. A mean that is not finite is not drawn."""


def ends(estimate: Estimate, unit: str) -> tuple[float, float, float]:
    """(mean, low, high) in the unit people read; without a finite deviation both ends are the mean."""
    mean, spread = (scaled(number, unit) for number in estimate)
    spread = spread if math.isfinite(spread) else 0.0
    return mean, mean - spread, mean + spread


def is_known(estimate: Estimate | None) -> bool:
    """Whether there is a mean to draw."""
    return estimate is not None and math.isfinite(estimate[0])


def error_bars(
    panel: Axes, places: Sequence[float], bars: Sequence[tuple[float, float]], colour: str, upright: bool
) -> None:
    """A bar from low to high at each of `places`, vertical or horizontal, with caps; none where both ends are
    one."""
    drawn = [(place, low, high) for place, (low, high) in zip(places, bars, strict=True) if low != high]
    if not drawn:
        return
    at, lows, highs = (list(column) for column in zip(*drawn, strict=True))
    lines = panel.vlines if upright else panel.hlines
    lines(at, lows, highs, colors=colour, linewidths=1.0, zorder=3)
    tips, twice = [*lows, *highs], [*at, *at]
    across, up = (twice, tips) if upright else (tips, twice)
    panel.plot(across, up, "_" if upright else "|", color=colour, markersize=5, zorder=3)
