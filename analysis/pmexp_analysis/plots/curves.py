"""Training curves: means and bands over seeds."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmexp_analysis.numbers.cells import scaled
from pmexp_analysis.plots.looks import SMALL, TEXT_SIZE, Style, curve, sheet
from pmexp_analysis.plots.text import axis_text, legend_below, plain_ticks, quiet, spans, ticks, wrapped

_HEIGHT = 2.3  # inches
_POINTS = 150  # on a curve; where there are more steps, each point is the mean of several
_WIDE = 1000.0  # least and greatest by so much apart: a logarithmic axis


def convergence(
    curves: pd.DataFrame,
    metrics: Sequence[str],
    looks: Mapping[str, Style],
    names: Mapping[str, str] | None = None,
) -> Figure:
    """A panel a metric over the steps: the mean over seeds and the band from their least to their greatest.

    `curves` has the long table's columns, of one (task, system); variants are drawn in the order of `looks`.
    `names`: what the legend says of a variant that stands for others too.
    """
    figure, panels = sheet(len(metrics), _HEIGHT)
    handles: dict[str, Line2D] = {}
    for panel, metric in zip(panels, metrics, strict=True):
        chosen = curves[(curves["metric"] == metric) & curves["value"].notna()]
        width = bin_width(chosen["step"])
        unit = unit_of(curves, metric)
        for place, (variant, look) in enumerate(looks.items()):
            seeds = by_seed(chosen[chosen["variant"] == variant], width) * scaled(1.0, unit)
            if len(seeds):
                handles.setdefault(variant, draw_band(panel, seeds, look, place))
        if spans(chosen["value"].tolist(), _WIDE):
            panel.set_yscale("log")
        panel.set_xlabel(step_text(width), fontsize=TEXT_SIZE)
        panel.set_ylabel(wrapped(axis_text(metric, unit), _HEIGHT - 0.6), fontsize=TEXT_SIZE)
        over_steps(panel)
    legend_below(figure, list(handles.values()), [(names or {}).get(each, each) for each in handles])
    return figure


def draw_band(panel: Axes, seeds: pd.DataFrame, look: Style, place: int) -> Line2D:
    """Mean and range of `seeds` (a row a step, a column a seed; NaN where a seed has no value)."""
    steps, mean = seeds.index.tolist(), seeds.mean(axis=1).tolist()
    panel.fill_between(
        steps, seeds.min(axis=1), seeds.max(axis=1), color=look.colour, alpha=0.15, linewidth=0
    )
    return curve(panel, steps, mean, look, place)


def bin_width(steps: "pd.Series[float]") -> int:
    """How many steps share a point, so that a curve has no more than about 150 of them."""
    if steps.nunique() <= _POINTS:
        return 1
    return math.ceil(float(steps.max() - steps.min() + 1) / _POINTS)


def by_seed(chosen: pd.DataFrame, width: int) -> pd.DataFrame:
    """The values of one variant and metric, a row a step, a column a seed; every `width` steps averaged."""
    step = chosen["step"] if width == 1 else chosen["step"] // width * width + (width - 1) / 2
    return chosen.groupby([step, "seed"], observed=True)["value"].mean().unstack("seed")


def unit_of(curves: pd.DataFrame, metric: str) -> str:
    """The unit that the records of `metric` carry. Raises KeyError where there is no record."""
    units = curves.loc[curves["metric"] == metric, "unit"]
    if units.empty:
        raise KeyError(f"no record of '{metric}'")
    return str(units.iloc[0])


def step_text(width: int) -> str:
    """The label of an axis of steps."""
    return "step" if width == 1 else f"step (means of {width} steps)"


def over_steps(panel: Axes) -> None:
    """The ticks of a panel over steps, and a word where there is nothing to draw."""
    if not panel.lines:
        panel.text(0.5, 0.5, "no finite value", transform=panel.transAxes, ha="center", fontsize=SMALL)
        panel.set(xticks=[], yticks=[])
    else:
        plain_ticks(panel.xaxis, 5, whole=True)
        ticks(panel.yaxis, 5)
    quiet(panel)
