"""The loss of each variant less that of the baseline with the same seed, over the steps."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pmexp.shown import counted
from pmexp_analysis.numbers.cells import scaled, shown_unit
from pmexp_analysis.plots.curves import bin_width, by_seed, over_steps, step_text, unit_of
from pmexp_analysis.plots.looks import (
    BLACK,
    GREY,
    LIGHT,
    SMALL,
    Style,
    outer_labels,
    panel_width,
    sheet,
)
from pmexp_analysis.plots.text import axis_text, legend_below, short, wrapped

_HEIGHT = 1.9  # inches


def loss_difference(
    curves: pd.DataFrame,
    metric: str,
    baseline: str,
    looks: Mapping[str, Style],
    names: Mapping[str, str] | None = None,
) -> Figure:
    """A panel a variant of `looks`: a thin line a seed, their mean, and as a yardstick the baseline's own
    spread over seeds (one standard deviation to either side, where it has two seeds or more).

    `curves` has the long table's columns, of one (task, system). Above each panel stands how many seeds are
    identical to the baseline, or the largest difference. A variant that shares no seed is said, not drawn.
    `names`: the title of a variant that stands for others too.
    """
    unit = unit_of(curves, metric)
    chosen = curves[(curves["metric"] == metric) & curves["value"].notna()]
    width = bin_width(chosen["step"])
    base = by_seed(chosen[chosen["variant"] == baseline], 1)
    others = [variant for variant in looks if variant != baseline]
    figure, panels = sheet(len(others), _HEIGHT, sharey=True)
    for panel, variant in zip(panels, others, strict=True):
        own = by_seed(chosen[chosen["variant"] == variant], 1)
        differences = _averaged(_common(own, base), width) * scaled(1.0, unit)
        _yardstick(panel, _averaged(base, width) * scaled(1.0, unit))
        _lines(panel, differences, looks[variant])
        name = (names or {}).get(variant, variant)
        title = wrapped(f"{name}\n{_difference_in_words(own, base, unit)}", panel_width(figure), SMALL)
        panel.set_title(title, fontsize=SMALL)
        over_steps(panel)
    label = wrapped(f"{axis_text(metric, unit)},\ndifference from the baseline", _HEIGHT - 0.5)
    outer_labels(panels, step_text(width), label)
    legend_below(figure, *_legend())
    return figure


def _averaged(seeds: pd.DataFrame, width: int) -> pd.DataFrame:
    """A row for every `width` steps of `seeds` (a row a step, a column a seed)."""
    if width == 1:
        return seeds
    return seeds.groupby(seeds.index // width * width + (width - 1) / 2).mean()


def _yardstick(panel: Axes, base: pd.DataFrame) -> None:
    spread = base.std(axis=1)
    if spread.notna().any():
        panel.fill_between(base.index, -spread, spread, color=LIGHT, linewidth=0, zorder=0.5)


def _lines(panel: Axes, differences: pd.DataFrame, look: Style) -> None:
    panel.axhline(0.0, color=BLACK, linewidth=0.8, zorder=1)
    mark = look.marker if len(differences) == 1 else ""
    for seed in differences:
        panel.plot(
            differences.index, differences[seed], color=look.colour, linewidth=0.6, alpha=0.6, marker=mark
        )
    if differences.shape[1]:
        panel.plot(differences.index, differences.mean(axis=1), color=look.colour, linewidth=1.8, marker=mark)


def _difference_in_words(own: pd.DataFrame, base: pd.DataFrame, unit: str) -> str:
    """How large the unaveraged differences of two tables (a row a step, a column a seed) are, in words."""
    seeds = _common(own, base).columns
    if not len(seeds):
        return "no seed has runs of both"
    own, base = own[seeds].align(base[seeds], axis=0)
    difference = (own - base).abs()
    one_lacks = own.isna() != base.isna()  # it diverged, and is not identical whatever it was before
    same = int(((difference.fillna(0.0) == 0.0) & ~one_lacks).all().sum())
    if same == len(seeds):
        return f"identical in all {same} seeds" if same > 1 else "identical (1 seed)"
    largest = f"by up to {short(scaled(float(difference.max(axis=None)), unit))} {shown_unit(unit)}".rstrip()
    some = f"{same} of {counted(len(seeds), 'seed')} identical, others differ"
    words = f"{some if same else 'differs'} {largest}"
    return f"{words}, not finite at some steps" if one_lacks.any(axis=None) else words


def _common(own: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """The differences at the steps and of the seeds that both have."""
    return (own - base).dropna(axis=1, how="all").dropna(axis=0, how="all")


def _legend() -> tuple[list[Line2D | Patch], list[str]]:
    thin, thick = (Line2D([], [], color=GREY, linewidth=width) for width in (0.6, 1.8))
    words = ["a seed", "mean over seeds", "the baseline over its seeds, \N{PLUS-MINUS SIGN}1 std"]
    return [thin, thick, Patch(color=LIGHT)], words
