"""A zone above the values of a panel for marks, a row a variant: what has no value, or the value 1."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import ScaledTranslation

from pmexp_analysis.plots.looks import GREY, LIGHT, SMALL, Style

_ROW = 0.085  # inches from one row of marks to the next


def shelf_height(rows: int) -> float:
    """The inches above the line at which the zone starts that `rows` rows of marks and their words take."""
    return _ROW * (rows + 0.5) + 0.16


def shelf(
    panel: Axes,
    line: float,
    words: str,
    marks: Mapping[str, Sequence[float]],
    looks: Mapping[str, Style],
) -> None:
    """From `line` upwards: `words`, and a row of marks a variant of `marks` at its places across.

    The marks' data stand on the line; only their drawing is moved up. The panel's limits must leave the room.
    """
    low, high = panel.get_ylim()
    panel.yaxis.set_major_locator(FixedLocator([t for t in panel.get_yticks() if low <= t <= line]))
    panel.axhspan(line, high, color=LIGHT, alpha=0.6, linewidth=0, zorder=0.4)
    panel.axhline(line, color=GREY, linewidth=0.9, zorder=0.6)
    inches = panel.figure.dpi_scale_trans
    for row, (variant, places) in enumerate(marks.items()):
        up = ScaledTranslation(0, _ROW * (row + 0.75), inches)
        panel.plot(
            places,
            [line] * len(places),
            looks[variant].marker,
            color=looks[variant].colour,
            markersize=6 if looks[variant].marker == "*" else 4.5,
            markeredgewidth=0,
            transform=panel.transData + up,
            zorder=5,
        )
    panel.text(0.02, 0.985, words, transform=panel.transAxes, ha="left", va="top", fontsize=SMALL)
