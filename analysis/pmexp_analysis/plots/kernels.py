"""What packing and unpacking masks takes of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pmexp_analysis.numbers.scores import label_of
from pmexp_analysis.plots.estimate import Estimate, ends, error_bars, is_known
from pmexp_analysis.plots.looks import BLACK, COLOURS, SMALL, TEXT_SIZE
from pmexp_analysis.plots.rows import named_rows
from pmexp_analysis.plots.text import legend_below, quiet, short, ticks

_METRICS = ("profile/packing_share", "profile/unpacking_share")
FILLS = ((COLOURS[0], ""), (COLOURS[1], "////"))
_THICK = 0.36


@dataclass(frozen=True)
class Share:
    """A variant's profile/packing_share and profile/unpacking_share, fractions of a step."""

    variant: str
    packing: Estimate
    unpacking: Estimate


def kernel_share(shares: Sequence[Share]) -> Figure:
    """Two bars a variant, packing and unpacking, in percent of a step, with their errors."""
    figure, (panel,) = named_rows([share.variant for share in shares], 1, 0.36, 0.3)
    for row, share in enumerate(shares):
        for place, estimate in enumerate((share.packing, share.unpacking)):
            _bar(panel, row + (place - 0.5) * _THICK, estimate, place)
    panel.set_xlim(0.0, _right(shares))
    ticks(panel.xaxis, 5)
    panel.set_xlabel("share of a step [%]", fontsize=TEXT_SIZE)
    quiet(panel, grid="x")
    handles = [Patch(facecolor=colour, hatch=hatch, edgecolor="white") for colour, hatch in FILLS]
    legend_below(figure, handles, [label_of(metric) for metric in _METRICS])
    return figure


def _right(shares: Sequence[Share]) -> float:
    """The end of the axis in percent, with room for the numbers."""
    drawn = [
        estimate for share in shares for estimate in (share.packing, share.unpacking) if is_known(estimate)
    ]
    return 125 * max((max(ends(estimate, "fraction")) for estimate in drawn), default=0.0) or 1.0


def _bar(panel: Axes, at: float, estimate: Estimate, place: int) -> None:
    if not is_known(estimate):
        panel.annotate(
            "not measured", (0.0, at), (4, 0), textcoords="offset points", va="center", fontsize=SMALL
        )
        return
    mean, low, high = (100 * value for value in ends(estimate, "fraction"))
    colour, hatch = FILLS[place]
    panel.barh(at, mean, _THICK, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
    error_bars(panel, [at], [(low, high)], BLACK, upright=False)
    text = f"{mean:.1f}" if mean >= 1 else short(mean, 2)
    panel.annotate(
        text, (max(mean, high), at), (5, 0), textcoords="offset points", va="center", fontsize=SMALL
    )
