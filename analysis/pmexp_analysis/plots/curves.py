"""Training curves: means and bands over seeds."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmexp_analysis.cells import scaled
from pmexp_analysis.plots.looks import Style
from pmexp_analysis.plots.text import TEXT_SIZE as _TEXT_SIZE
from pmexp_analysis.plots.text import axis_text as _axis_text
from pmexp_analysis.plots.text import quiet as _quiet

_POINTS = 150  # on a curve; where there are more steps, each point is the mean of several
_FEW = 20  # points or fewer are marked on their line


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
