"""How things look in every figure: colours, markers, dashes, sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe-Ito, told apart with any colour vision; a wine red for its yellow, which is not seen on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#882255")
BLACK, GREY, LIGHT = "#000000", "#777777", "#E4E4E4"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = (
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (5, 2, 1, 2)),
    (0, (9, 2)),
    (0, (2.5, 1.5)),
    (0, (5, 1.5, 1, 1.5, 1, 1.5)),
    (0, (9, 2, 2.5, 2)),
)

TEXT_SIZE, SMALL = 8, 7  # points
COLUMN, PAGE = 3.25, 6.75  # inches: a column of a paper, and its whole width
_MOST, _LEAST, _FEW = 9, 4, 20  # marks on a curve, and on one of few points
_LOOKS = 8  # variants whose marks stand apart


@dataclass(frozen=True)
class Style:
    """How a variant looks in every figure of a report."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]


def styles(variants: Sequence[str], baseline: str) -> dict[str, Style]:
    """A Style a variant: the baseline black and solid, the others in the order given."""
    made = {baseline: Style(BLACK, "*", "-")}
    for place, variant in enumerate(v for v in variants if v != baseline):
        dash = _DASHES[place % len(_DASHES)]
        colour = COLOURS[place % len(COLOURS)]
        marker = _MARKERS[(place + place // len(COLOURS)) % len(_MARKERS)]  # shifted when colours repeat
        made[variant] = Style(colour, marker, dash)
    return made


def _columns(count: int) -> int:
    return 2 if count == 4 else min(count, 3)


def sheet(count: int, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most three in a row, each row `height` inches high; and the panels.

    Raises ValueError for no panel.
    """
    if count == 0:
        raise ValueError("no panel to draw")
    columns = _columns(count)
    rows = -(-count // columns)
    figure = Figure(figsize=(COLUMN if columns == 1 else PAGE, height * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for spare in grid[count:]:
        spare.remove()
    return figure, grid[:count]


def outer_labels(panels: Sequence[Axes], across: str, up: str) -> None:
    """Label the panels of `sheet` at its left and lower edge alone."""
    columns = _columns(len(panels))
    for place, panel in enumerate(panels):
        if place % columns == 0:
            panel.set_ylabel(up, fontsize=TEXT_SIZE)
        if place + columns >= len(panels):
            panel.set_xlabel(across, fontsize=TEXT_SIZE)


def panel_width(figure: Figure) -> float:
    """About how wide the axes of a panel of `sheet` are, in inches, without its tick labels."""
    columns = len({panel.get_subplotspec().colspan.start for panel in figure.axes})  # type: ignore[union-attr]
    return figure.get_figwidth() / columns - 0.65


def curve(panel: Axes, steps: Sequence[float], values: Sequence[float], look: Style, place: int) -> Line2D:
    """The line of the variant at `place`: the first thick and under the others, marks not all at one step."""
    every = max(1, len(steps) // (_MOST if len(steps) > _FEW else _LEAST))
    first = place * every // _LOOKS if every >= _LOOKS else place % every
    (line,) = panel.plot(steps, values, **line_of(look, place), markevery=(first, every))
    return line


def line_of(look: Style, place: int) -> dict[str, Any]:
    """How the line of the variant at `place` is drawn, as keywords of matplotlib's lines."""
    return {
        "color": look.colour,
        "linestyle": look.dash,
        "linewidth": 2.4 if place == 0 else 1.4,
        "marker": look.marker,
        "markersize": 7 if look.marker == "*" else 4.5,
        "markeredgewidth": 0,
    }
