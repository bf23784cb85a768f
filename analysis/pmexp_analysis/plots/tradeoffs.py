"""What memory, speed and quality cost each other: Pareto panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pmexp_analysis.cells import scaled
from pmexp_analysis.plots.looks import Style
from pmexp_analysis.plots.text import TEXT_SIZE as _TEXT_SIZE
from pmexp_analysis.plots.text import axis_text as _axis_text
from pmexp_analysis.plots.text import quiet as _quiet
from pmexp_analysis.stats import pareto_front


@dataclass(frozen=True)
class Axis:
    """One axis of the Pareto panels. `direction` is "min" or "max"; `unit` is the metric's own."""

    metric: str
    unit: str
    direction: str


@dataclass(frozen=True)
class Point:
    """A variant in the Pareto panels: its legend text, and (mean, std or 0) an axis in the metric's unit."""

    variant: str
    legend: str
    places: tuple[tuple[float, float], ...]


def pareto(axes: Sequence[Axis], points: Sequence[Point], looks: Mapping[str, Style]) -> Figure:
    """A panel for every pair of `axes`: means with error bars of one std, and the front of the means."""
    pairs = [(i, j) for i in range(len(axes)) for j in range(i + 1, len(axes))]
    figure = Figure(figsize=(4.1 * len(pairs), 3.9), layout="constrained")
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for panel, (i, j) in zip(panels, pairs, strict=True):
        _pareto_panel(panel, axes[i], axes[j], [(p, p.places[i], p.places[j]) for p in points], looks)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(3, len(labels)),
        frameon=False,
        fontsize=_TEXT_SIZE,
    )
    return figure


def _pareto_panel(
    panel: Axes,
    across: Axis,
    up: Axis,
    points: Sequence[tuple[Point, tuple[float, float], tuple[float, float]]],
    looks: Mapping[str, Style],
) -> None:
    places = np.array([[scaled(x[0], across.unit), scaled(y[0], up.unit)] for _, x, y in points])
    signs = np.array([1.0 if axis.direction == "min" else -1.0 for axis in (across, up)])
    front = places[pareto_front(places * signs)]
    front = front[np.lexsort((front[:, 1], front[:, 0]))]
    panel.plot(*front.T, color="#888888", linestyle=":", linewidth=1.5, zorder=1)
    panel.scatter(
        front[:, 0],
        front[:, 1],
        s=190,
        facecolors="none",
        edgecolors="#888888",
        linewidths=1.3,
        zorder=2,
        label="on the Pareto front",
    )
    for (point, x, y), (place_x, place_y) in zip(points, places, strict=True):
        look = looks[point.variant]
        panel.errorbar(
            place_x,
            place_y,
            xerr=scaled(x[1], across.unit),
            yerr=scaled(y[1], up.unit),
            fmt=look.marker,
            color=look.colour,
            markersize=9 if look.marker == "*" else 7,
            capsize=3,
            elinewidth=1.2,
            zorder=3,
            label=point.legend,
        )
    panel.margins(0.18)
    panel.set_xlabel(_axis_text(across.metric, across.unit, across.direction), fontsize=_TEXT_SIZE)
    panel.set_ylabel(_axis_text(up.metric, up.unit, up.direction), fontsize=_TEXT_SIZE)
    _quiet(panel)
