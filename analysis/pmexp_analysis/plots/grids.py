"""A metric over two settings: a heat map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pmexp_analysis.numbers.cells import scaled
from pmexp_analysis.plots.estimate import Estimate, ends, is_known
from pmexp_analysis.plots.looks import BLACK, SMALL, TEXT_SIZE
from pmexp_analysis.plots.text import (
    axis_text,
    better,
    inches,
    named_ticks,
    room,
    short,
    spans,
    ticks,
    wrapped,
)

_MAP = "cividis"  # perceptually uniform, rising in lightness alone, made for colour-blind eyes
_LEAST, _HIGH = 0.7, 0.4  # inches of a cell: wide at the least, high
_WIDE = 1000.0  # least and greatest by so much apart: a logarithmic map
_MIDDLE = 0.179  # the luminance on which black and white text have the same contrast


@dataclass(frozen=True)
class Cell:
    """The metric at one pair of settings; where `value` is None, `why` says why in a word."""

    across: float
    up: float
    value: Estimate | None
    why: str = ""


def heat_map(
    cells: Sequence[Cell],
    across: str,
    up: str,
    metric: str,
    unit: str,
    direction: str,
    chosen: tuple[float, float] | None,
) -> Figure:
    """The grid of all settings that occur, mean and error in each cell; what is missing is hatched and named.

    `across` and `up` label the two settings; the cell `chosen` = (across, up) is ringed. A pair of settings
    without a Cell is missing as "no run".
    """
    columns, rows = (sorted(set(axis)) for axis in zip(*((c.across, c.up) for c in cells), strict=True))
    told = {(cell.across, cell.up): cell for cell in cells}
    grid = [[told.get((x, y), Cell(x, y, None, "no run")) for x in columns] for y in rows]
    texts = [[_cell_text(cell, unit) for cell in line] for line in grid]
    wide = max(_LEAST, *(inches(text, SMALL) + 0.16 for line in texts for text in line))
    size = (wide * len(columns) + 1.7, _HIGH * len(rows) + 0.75)
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    means = np.array([[_mean(cell, unit) for cell in line] for line in grid])
    mesh = panel.pcolormesh(
        np.ma.masked_invalid(means), cmap=_MAP, norm=_norm(means), edgecolors="white", linewidth=1.0
    )
    for row, line in enumerate(grid):
        for column, cell in enumerate(line):
            known = np.isfinite(means[row, column])
            colour = to_rgb(tuple(mesh.to_rgba(means[row, column]))) if known else (1.0, 1.0, 1.0)
            _cell(panel, column, row, texts[row][column], colour, bool(known))
            if (cell.across, cell.up) == chosen:
                _ring(panel, column, row)
    named_ticks(panel.xaxis, [place + 0.5 for place in range(len(columns))], [short(x, 6) for x in columns])
    named_ticks(panel.yaxis, [place + 0.5 for place in range(len(rows))], [short(y, 6) for y in rows])
    panel.set_xlabel(across, fontsize=TEXT_SIZE)
    panel.set_ylabel(wrapped(up, size[1] - 0.4), fontsize=TEXT_SIZE)
    panel.tick_params(labelsize=SMALL, length=0)
    panel.spines[:].set_visible(False)
    _bar(figure, panel, mesh, wrapped(axis_text(metric, unit) + better(direction), size[1] - 0.4))
    return figure


def _mean(cell: Cell, unit: str) -> float:
    return scaled(cell.value[0], unit) if cell.value is not None and is_known(cell.value) else math.nan


def _cell_text(cell: Cell, unit: str) -> str:
    if cell.value is None or not is_known(cell.value):
        return wrapped(cell.why or "not finite", _LEAST, SMALL)
    mean, low, high = ends(cell.value, unit)
    if low == high:
        return short(mean, 4)
    std = scaled(cell.value[1], unit)
    places = 1 - math.floor(math.log10(std) + 1e-9)
    if not 0 <= places <= 5 or abs(mean) >= 1e7:
        return f"{short(mean, 4)}\n\N{PLUS-MINUS SIGN}{short(std, 2)}"
    return f"{mean:.{places}f}\n\N{PLUS-MINUS SIGN}{std:.{places}f}".replace("-", "\N{MINUS SIGN}")


def _norm(means: npt.NDArray[np.float64]) -> Normalize:
    known = means[np.isfinite(means)].tolist()
    if not known:
        return Normalize(0.0, 1.0)
    low, high = min(known), max(known)
    if spans(known, _WIDE):
        return LogNorm(low, high)
    margin = room(low, high, 0.0)
    return Normalize(low - margin, high + margin)


def _cell(panel: Axes, column: int, row: int, text: str, colour: tuple[float, ...], known: bool) -> None:
    if not known:
        hatch = {"hatch": "/////", "edgecolor": "#BBBBBB", "linewidth": 0.0}
        panel.add_patch(Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, facecolor="white", **hatch))  # type: ignore[arg-type]
    box = None if known else {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    ink = BLACK if luminance(colour) > _MIDDLE else "white"
    panel.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL, color=ink, bbox=box)


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2), 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _ring(panel: Axes, column: int, row: int) -> None:
    for colour, width in ((BLACK, 3.6), ("white", 1.2)):
        panel.add_patch(
            Rectangle(
                (column, row), 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=4, clip_on=False
            )
        )


def _bar(figure: Figure, panel: Axes, mesh: QuadMesh, label: str) -> None:
    bar = figure.colorbar(mesh, ax=panel, aspect=12, pad=0.03)
    ticks(bar.ax.yaxis, 5)
    bar.ax.tick_params(labelsize=SMALL, length=3)
    bar.set_label(label, fontsize=TEXT_SIZE)
    bar.outline.set_visible(False)
