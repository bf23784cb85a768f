"""What each variant changes against the baseline, with intervals: a forest plot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pmexp_analysis.numbers.cells import scaled
from pmexp_analysis.plots.looks import BLACK, COLOURS, LIGHT, PAGE, SMALL, TEXT_SIZE
from pmexp_analysis.plots.text import (
    axis_text,
    better,
    inches,
    legend_below,
    named_ticks,
    plain_ticks,
    quiet,
    short,
    wrapped,
)

_OTHER = "#444444"
_MARKS = {
    "better": ("s", COLOURS[0]),
    "worse": ("^", COLOURS[3]),
    "identical": ("D", BLACK),
    "equal": ("D", BLACK),
}
_ROW, _BELOW = 0.21, 0.62  # inches: an effect; ticks and label of a panel
_AXIS, _NAME, _GAP = 2.1, 1.6, 0.12  # inches: between the axes, names at most, between columns of text
_CUT = 3.0  # times the middle interval: where wider ones are cut


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
    metrics = list(dict.fromkeys(effect.metric for effect in effects))
    groups = [[effect for effect in effects if effect.metric == metric] for metric in metrics]
    names = {effect.label: wrapped(effect.label, _NAME, SMALL) for effect in effects}
    left = _widest(list(names.values()))
    numbers = _widest([_numbers(effect) for effect in effects]) + _GAP
    width = max(PAGE, left + _AXIS + numbers + _widest([effect.verdict for effect in effects]) + _GAP)
    heights = [len(group) * (_ROW + 0.11 * max(n.count("\n") for n in names.values())) for group in groups]
    figure = Figure(figsize=(width, sum(heights) + _BELOW * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, group in zip(panels, groups, strict=True):
        _panel(panel, group, names, numbers)
        label = f"{axis_text(group[0].metric, group[0].unit)}, difference from the baseline"
        label = wrapped(label, _AXIS + min(1.0, 2 * left)) + better(group[0].direction)
        panel.set_xlabel(label, fontsize=TEXT_SIZE)
    if any(effect.margin is not None for effect in effects):
        legend_below(figure, [Patch(color=LIGHT)], ["equivalence zone"])
    return figure


def _widest(texts: Sequence[str]) -> float:
    return max(inches(text, SMALL) for text in texts)


def _panel(panel: Axes, group: Sequence[Effect], names: Mapping[str, str], numbers: float) -> None:
    limit = _limit(group)
    panel.set(xlim=(-limit, limit), ylim=(len(group) - 0.5, -0.5))
    for place, effect in enumerate(group):
        _row(panel, place, effect, limit)
        _words(panel, place, effect, numbers)
    panel.axvline(0.0, color=BLACK, linewidth=0.8, zorder=1)
    named_ticks(panel.yaxis, range(len(group)), [names[effect.label] for effect in group])
    plain_ticks(panel.xaxis, 5)
    quiet(panel, grid="x")
    panel.spines["left"].set_visible(False)


def _ends(effect: Effect) -> tuple[float, float]:
    """The interval in the unit people read, NaN where there is none."""
    ends = (math.nan if end is None else end for end in (effect.low, effect.high))
    low, high = (scaled(end, effect.unit) for end in ends)
    return low, high


def _limit(group: Sequence[Effect]) -> float:
    """How far the axis reaches: over all estimates and zones, and not much further for one wide interval."""
    inner = [scaled(abs(value), e.unit) for e in group for value in (e.estimate, e.margin or 0.0)]
    outer = [max(map(abs, _ends(effect))) for effect in group]
    outer = sorted(end for end in outer if math.isfinite(end) and end > 0)
    widest = min(outer[-1], _CUT * outer[(len(outer) - 1) // 2]) if outer else 0.0
    return 1.12 * max(widest, *(value for value in inner if math.isfinite(value)), 0.0) or 1.0


def _row(panel: Axes, place: int, effect: Effect, limit: float) -> None:
    if effect.margin is not None:
        margin = scaled(effect.margin, effect.unit)
        panel.barh(place, 2 * margin, 1.0, -margin, color=LIGHT, linewidth=0, zorder=0.5)
    estimate, (low, high) = scaled(effect.estimate, effect.unit), _ends(effect)
    if not math.isfinite(estimate):
        return
    marker, colour = _MARKS.get(effect.verdict, ("o", _OTHER))
    if math.isfinite(low) and math.isfinite(high):
        panel.hlines([place], [max(low, -limit)], [min(high, limit)], colors=colour, linewidths=1.4, zorder=3)
        for end, arrow, leaves in ((-limit, "<", low < -limit), (limit, ">", high > limit)):
            if leaves:
                panel.plot([0.98 * end], [place], arrow, color=colour, markersize=5, zorder=3)
    panel.plot([estimate], [place], marker, color=colour, markersize=5.5, zorder=4)


def _words(panel: Axes, place: int, effect: Effect, width: float) -> None:
    """The numbers, and `width` inches further the verdict."""
    colour = _MARKS.get(effect.verdict, ("o", _OTHER))[1]
    for text, shift, ink in ((_numbers(effect), 0.0, BLACK), (effect.verdict, width, colour)):
        panel.annotate(
            text,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(72 * (_GAP + shift), 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=SMALL,
            color=ink,
        )


def _numbers(effect: Effect) -> str:
    if not math.isfinite(effect.estimate):
        return ""
    low, high = _ends(effect)
    interval = f" [{_signed(low)}, {_signed(high)}]" if math.isfinite(low) and math.isfinite(high) else ""
    return _signed(scaled(effect.estimate, effect.unit)) + interval


def _signed(value: float) -> str:
    return f"+{short(value)}" if value > 0 else short(value)
