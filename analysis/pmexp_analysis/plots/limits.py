"""The largest batch, or context, that fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pmexp_analysis.plots.looks import BLACK, GREY, SMALL, TEXT_SIZE, Style
from pmexp_analysis.plots.rows import ROW, named_rows
from pmexp_analysis.plots.text import quiet, short, ticks, wrapped


@dataclass(frozen=True)
class Fit:
    """The largest value that fits, 0 where nothing tried does. `at_least`: the largest tried still fit."""

    variant: str
    largest: float
    at_least: bool


def largest(panels: Mapping[str, Sequence[Fit]], baseline: str, looks: Mapping[str, Style]) -> Figure:
    """A panel a key of `panels` (the text of its axis, as "largest batch [sequences]"), a bar a variant.

    At each bar stands the value and its factor over the baseline's, bounded ("at least") where either is.
    """
    variants = list(dict.fromkeys(fit.variant for fits in panels.values() for fit in fits))
    figure, axes = named_rows(variants, len(panels), ROW + 0.04, 0.9)
    for panel, (words, fits) in zip(axes, panels.items(), strict=True):
        base = next((fit for fit in fits if fit.variant == baseline), None)
        for fit in fits:
            _bar(panel, variants.index(fit.variant), fit, base, looks[fit.variant])
        longest = max((fit.largest for fit in fits), default=0.0) or 1.0
        panel.set_xlim(0.0, 1.75 * longest)  # the text at the longest bar needs room
        if base is not None and base.largest:
            panel.axvline(base.largest, color=GREY, linestyle=":", linewidth=1.0, zorder=0.5)
        ticks(panel.xaxis, 4)
        panel.set_xlabel(wrapped(words, 2.4), fontsize=TEXT_SIZE)
        quiet(panel, grid="x")
    return figure


def _bar(panel: Axes, row: int, fit: Fit, base: Fit | None, look: Style) -> None:
    panel.barh(row, fit.largest, 0.62, color=look.colour, alpha=0.75, linewidth=0)
    if fit.at_least:
        panel.plot([fit.largest], [row], ">", color=BLACK, markersize=4, clip_on=False)
    text = _factor_in_words(fit, None if base is fit else base)
    panel.annotate(text, (fit.largest, row), (6, 0), textcoords="offset points", va="center", fontsize=SMALL)


def _factor_in_words(fit: Fit, base: Fit | None) -> str:
    if fit.largest == 0:
        return "nothing tried fits"
    value = f"{'at least ' if fit.at_least else ''}{short(fit.largest, 6)}"
    if base is None or base.largest == 0 or (fit.at_least and base.at_least):
        return value
    bound = (
        "\N{GREATER-THAN OR EQUAL TO}"
        if fit.at_least
        else "\N{LESS-THAN OR EQUAL TO}"
        if base.at_least
        else ""
    )
    return f"{value} ({bound}{short(fit.largest / base.largest)}\N{MULTIPLICATION SIGN})"
