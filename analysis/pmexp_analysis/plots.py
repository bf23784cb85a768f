"""Figures as pure functions: numbers in, a matplotlib Figure out; nothing is shown or written here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmexp_analysis.cells import scaled, shown_unit
from pmexp_analysis.compare import label_of
from pmexp_analysis.stats import pareto_front

# Okabe-Ito, told apart with any colour vision and in grey print; black is the baseline's.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_POINTS = 150  # on a curve; where there are more steps, each point is the mean of several
_FEW = 20  # points or fewer are marked on their line
_TEXT_SIZE = 9


@dataclass(frozen=True)
class Style:
    """How a variant looks in every figure of a report."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]


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


def styles(variants: Sequence[str], baseline: str) -> dict[str, Style]:
    """A Style a variant: the baseline black and solid, the others in the order given."""
    made = {baseline: Style("#000000", "*", "-")}
    for place, variant in enumerate(v for v in variants if v != baseline):
        dash = _DASHES[1 + place % (len(_DASHES) - 1)]
        colour = _COLOURS[place % len(_COLOURS)]
        marker = _MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)]  # shifted when colours repeat
        made[variant] = Style(colour, marker, dash)
    return made


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


def convergence(curves: pd.DataFrame, metrics: Sequence[str], looks: Mapping[str, Style]) -> Figure:
    """A panel a metric over the steps: the mean over seeds and the band from their least to their greatest.

    `curves` has the long table's columns, of one (task, system); variants are drawn in the order of `looks`.
    """
    figure = Figure(figsize=(4.1 * len(metrics), 3.6), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    handles: dict[str, Line2D] = {}
    for panel, metric in zip(panels, metrics, strict=True):
        chosen = curves[curves["metric"] == metric]
        width, unit = _bin_width(chosen["step"]), chosen["unit"].iloc[0]
        for place, (variant, look) in enumerate(looks.items()):
            band = _band(chosen[chosen["variant"] == variant], width) * scaled(1.0, unit)
            if not band.empty:
                line = _draw(panel, band, look, thick=place == 0)
                handles.setdefault(variant, line)
        panel.set_xlabel("step" if width == 1 else f"step (means of {width} steps)", fontsize=_TEXT_SIZE)
        panel.set_ylabel(_axis_text(metric, unit), fontsize=_TEXT_SIZE)
        _quiet(panel)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(6, max(1, len(handles))),
        frameon=False,
        fontsize=_TEXT_SIZE,
    )
    return figure


def _draw(panel: Axes, band: pd.DataFrame, look: Style, thick: bool) -> Line2D:
    panel.fill_between(band.index, band["min"], band["max"], color=look.colour, alpha=0.15, linewidth=0)
    (line,) = panel.plot(
        band.index,
        band["mean"],
        color=look.colour,
        linestyle=look.dash,
        linewidth=2.6 if thick else 1.7,
        marker=look.marker if len(band) <= _FEW else "",
        markersize=4,
    )
    return line


def _bin_width(steps: pd.Series) -> int:
    """How many steps share a point, so that a curve has no more than about _POINTS of them."""
    if steps.nunique() <= _POINTS:
        return 1
    return math.ceil(float(steps.max() - steps.min() + 1) / _POINTS)


def _band(curve: pd.DataFrame, width: int) -> pd.DataFrame:
    """mean, min and max over seeds by step, each seed first averaged over every `width` steps."""
    step = curve["step"] if width == 1 else curve["step"] // width * width + (width - 1) / 2
    by_seed = curve.groupby([step, "seed"], observed=True)["value"].mean()
    return by_seed.groupby(level=0).agg(["mean", "min", "max"])


def _axis_text(metric: str, unit: str, direction: str = "none") -> str:
    shown = shown_unit(unit)
    text = f"{label_of(metric)} [{shown}]" if shown else label_of(metric)
    return text + {"min": "\n(less is better)", "max": "\n(more is better)"}.get(direction, "")


def _quiet(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.tick_params(labelsize=8)
