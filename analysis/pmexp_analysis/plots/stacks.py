"""Memory by what it holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pmexp_analysis.numbers.cells import scaled, shown_unit
from pmexp_analysis.plots.looks import BLACK, COLOURS, SMALL, TEXT_SIZE
from pmexp_analysis.plots.rows import named_rows
from pmexp_analysis.plots.text import legend_below, quiet, short, ticks

_UNIT = "bytes"
_ROW = 0.3  # inches
# Neighbours differ in grey print as well: by their lightness, and by their hatching.
FILLS = (
    (COLOURS[0], ""),
    (COLOURS[1], ""),
    (COLOURS[2], "//"),
    (COLOURS[5], ""),
    (COLOURS[3], ".."),
    (COLOURS[4], "\\\\"),
    (COLOURS[6], "xx"),
    ("#BBBBBB", ""),
)


@dataclass(frozen=True)
class Stack:
    """A variant's bytes by category, and a peak beside them (bytes; None where it was not measured)."""

    variant: str
    parts: Mapping[str, float]
    peak: float | None


def breakdown(stacks: Sequence[Stack], categories: Sequence[str], peak_label: str) -> Figure:
    """A bar a variant, its parts in the order of `categories` (one that is absent is 0), the peak marked
    and called `peak_label`.

    At the end of each bar stands its sum. Raises KeyError for a part that is not among `categories`.
    """
    figure, (panel,) = named_rows([stack.variant for stack in stacks], 1, _ROW, 0.6)
    for row, stack in enumerate(stacks):
        strange = set(stack.parts) - set(categories)
        if strange:
            raise KeyError(f"{stack.variant}: no category {', '.join(sorted(strange))}")
        _bar(panel, row, stack, categories)
    panel.set_xlim(0.0, panel.get_xlim()[1])
    ticks(panel.xaxis, 5)
    panel.set_xlabel(f"memory [{shown_unit(_UNIT)}]; numbers are totals", fontsize=TEXT_SIZE)
    quiet(panel, grid="x")
    handles: list[Artist] = [_patch(place) for place in range(len(categories))]
    peak = [Line2D([], [], linestyle="", marker="D", color=BLACK, markersize=5)]
    shown = any(_is_known(stack.peak) for stack in stacks)
    legend_below(figure, [*handles, *peak[:shown]], [*categories, *[peak_label][:shown]])
    return figure


def _bar(panel: Axes, row: int, stack: Stack, categories: Sequence[str]) -> None:
    left = 0.0
    for place, category in enumerate(categories):
        width = scaled(stack.parts.get(category, 0.0), _UNIT)
        width = width if math.isfinite(width) else 0.0
        colour, hatch = FILLS[place % len(FILLS)]
        panel.barh(row, width, 0.66, left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        left += width
    end = left
    if stack.peak is not None and _is_known(stack.peak):
        end = max(left, scaled(stack.peak, _UNIT))
        panel.plot(
            [scaled(stack.peak, _UNIT)], [row], "D", color=BLACK, markersize=5, markeredgecolor="white"
        )
    panel.annotate(
        short(left, 4), (end, row), (6, 0), textcoords="offset points", va="center", fontsize=SMALL
    )


def _is_known(peak: float | None) -> bool:
    return peak is not None and math.isfinite(peak)


def _patch(place: int) -> Patch:
    colour, hatch = FILLS[place % len(FILLS)]
    return Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
