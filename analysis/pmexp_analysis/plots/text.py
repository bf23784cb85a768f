"""The words and numbers on a figure."""

from matplotlib.axes import Axes

from pmexp_analysis.cells import shown_unit
from pmexp_analysis.compare import label_of

TEXT_SIZE = 9


def axis_text(metric: str, unit: str, direction: str = "none") -> str:
    shown = shown_unit(unit)
    text = f"{label_of(metric)} [{shown}]" if shown else label_of(metric)
    return text + {"min": "\n(less is better)", "max": "\n(more is better)"}.get(direction, "")


def quiet(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.tick_params(labelsize=8)
