"""Draws the figure of level=micro, a pure function of its rows."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pmexp.bench.contenders import BASELINE, NO_CACHE, PHASES
from pmexp.bench.timing import Timing

# Okabe-Ito, told apart with any colour vision and in grey print; black is the baseline's.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_TEXT_SIZE = 9


def figure(rows: Sequence[Timing]) -> Figure:
    """Speed against the baseline with its interval: a line of panels a dtype, a panel a phase."""
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    phases = [phase for phase in PHASES if any(row.phase == phase for row in rows)]
    sizes = sorted({(row.numel, row.shape) for row in rows})
    places = {shape: place for place, (_, shape) in enumerate(sizes)}
    names = [name for name in dict.fromkeys(row.contender for row in rows) if name != BASELINE]
    made = Figure(figsize=(3.6 * len(phases), 3.4 * len(dtypes) + 0.8), layout="constrained")
    panels = made.subplots(len(dtypes), len(phases), squeeze=False, sharex=True, sharey="row")
    for line, dtype in zip(panels, dtypes, strict=True):
        for panel, phase in zip(line, phases, strict=True):
            _panel(panel, [row for row in rows if (row.dtype, row.phase) == (dtype, phase)], places, names)
            panel.set_title(f"{phase}, {dtype}", fontsize=_TEXT_SIZE)
        line[0].set_ylabel(f"times as fast as {BASELINE}\n(more is better)", fontsize=_TEXT_SIZE)
    drawn: dict[str, Any] = {}  # no phase has every contender
    for panel in panels[0]:
        drawn |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    made.legend(
        list(drawn.values()),
        list(drawn),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=_TEXT_SIZE,
    )
    return made


def _panel(panel: Axes, rows: Sequence[Timing], places: dict[str, int], names: Sequence[str]) -> None:
    panel.axhline(1.0, color="#000000", linewidth=1.3, label=BASELINE)
    families = list(dict.fromkeys(name.removesuffix(NO_CACHE) for name in names))
    for name in names:
        family = families.index(name.removesuffix(NO_CACHE)) % len(_COLOURS)
        own = sorted((row for row in rows if row.contender == name), key=lambda row: places[row.shape])
        if own:
            panel.errorbar(
                [places[row.shape] for row in own],
                [row.ratio for row in own],
                yerr=[[row.ratio - row.low for row in own], [row.high - row.ratio for row in own]],
                color=_COLOURS[family],
                marker=_MARKERS[family],
                linestyle="--" if name.endswith(NO_CACHE) else "-",
                markersize=5,
                linewidth=1.4,
                capsize=2,
                label=name,
            )
    panel.set_yscale("log")
    panel.set_xticks(list(places.values()), list(places), rotation=40, ha="right")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.tick_params(labelsize=8)
