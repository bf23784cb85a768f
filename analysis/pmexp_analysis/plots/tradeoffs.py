"""What memory, speed and quality cost each other: Pareto panels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Ruler
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pmexp_analysis.numbers.stats import pareto_front
from pmexp_analysis.plots.estimate import Estimate, ends, error_bars
from pmexp_analysis.plots.looks import GREY, LIGHT, TEXT_SIZE, Style, panel_width, sheet
from pmexp_analysis.plots.text import axis_text, better, legend_below, quiet, room, spans, ticks, wrapped

Array = npt.NDArray[np.float64]
_HEIGHT = 2.5  # inches
_WIDE = 1000.0  # least and greatest by so much apart: a logarithmic axis
_NEAR = 0.02  # a share of a panel: nearer points hide each other
_LARGER, _LARGEST = 5.0, 18.0  # points that a mark grows for each that hides it, and in all
_ROOM = 0.15  # a share of the values' span, on either side


@dataclass(frozen=True)
class Axis:
    """One axis of the Pareto panels. `direction` is "min" or "max"; `unit` is the metric's own."""

    metric: str
    unit: str
    direction: str


@dataclass(frozen=True)
class Point:
    """A variant in the Pareto panels: its legend text, and an estimate an axis in the metric's unit."""

    variant: str
    legend: str
    places: tuple[Estimate, ...]


def pareto(axes: Sequence[Axis], points: Sequence[Point], looks: Mapping[str, Style]) -> Figure:
    """A panel for every pair of `axes`: means with their errors, the front of the means, and shaded what
    some mean dominates (as good on both axes and better on one)."""
    pairs = [(i, j) for i in range(len(axes)) for j in range(i + 1, len(axes))]
    figure, panels = sheet(len(pairs), _HEIGHT)
    for panel, (i, j) in zip(panels, pairs, strict=True):
        known = [p for p in points if math.isfinite(p.places[i][0]) and math.isfinite(p.places[j][0])]
        bars = np.array([[ends(p.places[i], axes[i].unit), ends(p.places[j], axes[j].unit)] for p in known])
        if known:
            _panel(panel, (axes[i], axes[j]), [looks[p.variant] for p in known], bars)
        width = panel_width(figure) - 0.25
        panel.set_xlabel(_label(axes[i], width), fontsize=TEXT_SIZE)
        panel.set_ylabel(_label(axes[j], _HEIGHT - 0.7), fontsize=TEXT_SIZE)
        quiet(panel)
    legend_below(figure, *_legend(points, looks))
    return figure


def _panel(panel: Axes, axes: tuple[Axis, Axis], looks: Sequence[Style], bars: Array) -> None:
    """`bars` has the shape (points, 2, 3): across and up, their mean, low and high."""
    for ruler, spread in zip((panel.xaxis, panel.yaxis), np.moveaxis(bars, 1, 0), strict=True):
        _limits(ruler, spread)
    means = bars[:, :, 0]
    signs = np.array([1.0 if axis.direction == "min" else -1.0 for axis in axes])
    is_front = pareto_front(means * signs)
    front = means[is_front]
    _dominated(panel, front[np.lexsort((front * signs).T[::-1])], signs)
    sizes = _sizes(panel, means, looks)
    rings = (sizes[is_front] + 6.0) ** 2
    across, up = front.T
    panel.scatter(across, up, s=rings, facecolors="none", edgecolors=GREY, linewidths=1.1, zorder=2)
    for look, (x, y), size in zip(looks, bars, sizes, strict=True):
        error_bars(panel, [y[0]], [(x[1], x[2])], look.colour, upright=False)
        error_bars(panel, [x[0]], [(y[1], y[2])], look.colour, upright=True)
        (mark,) = panel.plot([x[0]], [y[0]], look.marker, color=look.colour, markersize=size, zorder=4)
        mark.set(markeredgecolor="white", markeredgewidth=0.6)


def _sizes(panel: Axes, means: Array, looks: Sequence[Style]) -> Array:
    """The sizes (points,) of the marks at `means` (points, 2): larger where later marks would hide one."""
    drawn = panel.transAxes.inverted().transform(panel.transData.transform(means))
    hiding = [(np.abs(drawn[k + 1 :] - mark) < _NEAR).all(axis=1).sum() for k, mark in enumerate(drawn)]
    larger = min(_LARGER, _LARGEST / max(1, *hiding))
    return np.array([_size(look) + larger * count for look, count in zip(looks, hiding, strict=True)])


def _limits(ruler: Ruler, bars: Array) -> None:
    """Scale, limits and ticks for what `bars` (points, 3) covers; the shade will end at the limits."""
    low, high, means = float(bars.min()), float(bars.max()), bars[:, 0].tolist()
    name = ruler.axis_name  # type: ignore[attr-defined]
    if spans(means, _WIDE):
        low = low if low > 0 else min(means)
        margin = (high / low) ** _ROOM
        ruler.axes.set(**{f"{name}scale": "log", f"{name}lim": (low / margin, high * margin)})
    else:
        margin = room(low, high, _ROOM)
        ruler.axes.set(**{f"{name}lim": (low - margin, high + margin)})
    ticks(ruler, 4 if name == "x" else 5)


def _dominated(panel: Axes, front: Array, signs: Array) -> None:
    """Shade what `front` (points, 2; from the best across to the worst) dominates: a staircase."""
    worst = [
        max(limits, key=lambda end: end * sign)
        for limits, sign in zip((panel.get_xlim(), panel.get_ylim()), signs, strict=True)
    ]
    stairs = [(front[0, 0], worst[1])]
    for place, (x, y) in enumerate(front):
        if place:
            stairs.append((x, front[place - 1, 1]))
        stairs.append((x, y))
    stairs.append((worst[0], front[-1, 1]))
    panel.fill(*zip(*stairs, (worst[0], worst[1]), strict=True), color=LIGHT, linewidth=0, zorder=0.5)
    panel.plot(*zip(*stairs, strict=True), color=GREY, linestyle=":", linewidth=1.2, zorder=1)


def _legend(points: Sequence[Point], looks: Mapping[str, Style]) -> tuple[list[Artist], list[str]]:
    ring = Line2D([], [], linestyle="", marker="o", markersize=10, fillstyle="none", color=GREY)
    handles: list[Artist] = [ring, Patch(color=LIGHT)]
    for look in (looks[point.variant] for point in points):
        handles.append(
            Line2D([], [], linestyle="", marker=look.marker, color=look.colour, markersize=_size(look))
        )
    return handles, ["on the Pareto front", "dominated", *map(_legend_text, points)]


def _legend_text(point: Point) -> str:
    drawn = all(math.isfinite(estimate[0]) for estimate in point.places)
    return point.legend if drawn else f"{point.legend} (not in every panel: not finite)"


def _size(look: Style) -> int:
    return 12 if look.marker == "*" else 7


def _label(axis: Axis, width: float) -> str:
    return wrapped(axis_text(axis.metric, axis.unit) + better(axis.direction), width)
