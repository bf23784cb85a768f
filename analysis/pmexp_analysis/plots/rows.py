"""Panels whose rows are named at the left: bars and effects, a row a variant."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pmexp_analysis.plots.looks import COLUMN, PAGE, SMALL
from pmexp_analysis.plots.text import inches, named_ticks, wrapped

ROW = 0.24  # inches a bar
_NAME = 1.6  # inches that a name may take before it is broken
_PLAIN = 1.0  # inches that a name takes in a figure a column wide


def named_rows(names: Sequence[str], panels: int, row: float, extra: float) -> tuple[Figure, list[Axes]]:
    """`panels` panels side by side with one row for each of `names` from the top, `row` inches each.

    A column wide, or a page where the longest name or `extra` inches a panel need it; row k is at y = k.
    Raises ValueError where there is nothing to draw.
    """
    if not names or not panels:
        raise ValueError("no row or no panel to draw")
    texts = [wrapped(name, _NAME, SMALL) for name in names]
    longest = max(inches(text, SMALL) for text in texts)
    width = COLUMN + max(0.0, longest - _PLAIN) + extra + (panels - 1) * (COLUMN - _PLAIN + extra)
    lines = max(text.count("\n") + 1 for text in texts)
    height = len(names) * max(row, lines * 0.125) + 0.6
    fitting = COLUMN if width <= COLUMN else PAGE
    figure = Figure(figsize=(fitting if panels < 3 else max(width, PAGE), height), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for place, panel in enumerate(axes):
        panel.set_ylim(len(names) - 0.5, -0.5)
        named_ticks(panel.yaxis, range(len(names)), texts if place == 0 else [""] * len(texts))
    return figure, axes
