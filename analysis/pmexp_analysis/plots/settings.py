"""A metric against a numeric setting: sequence length, batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmexp_analysis.plots.estimate import Estimate, ends, error_bars, is_known
from pmexp_analysis.plots.looks import SMALL, TEXT_SIZE, Style, line_of, outer_labels, panel_width, sheet
from pmexp_analysis.plots.shelf import shelf, shelf_height
from pmexp_analysis.plots.text import (
    axis_text,
    better,
    inches,
    legend_below,
    named_ticks,
    quiet,
    room,
    short,
    spans,
    ticks,
    wrapped,
)

_HEIGHT = 2.2  # inches of a panel with its title
_INSIDE = 1.6  # inches of that between the axes
Bar = tuple[float, float, float]  # mean, low, high
_DECADE, _DOUBLINGS = 10.0, 4.0  # least and greatest by so much apart: a logarithmic axis


@dataclass(frozen=True)
class Level:
    """A variant's metric at one setting, `panel` names the task; `value` None: out of memory there."""

    panel: str
    variant: str
    setting: float
    value: Estimate | None


def scaling(
    levels: Sequence[Level],
    setting: str,
    metric: str,
    unit: str,
    direction: str,
    looks: Mapping[str, Style],
) -> Figure:
    """A panel a task, a line a variant with errors; runs out of memory are marks on a line of their own.

    That line is above the values. `setting` labels the other axis. Axes are logarithmic where the values span
    a decade or more (settings: a factor of 4).
    """
    names = list(dict.fromkeys(level.panel for level in levels))
    most = max(len({o.variant for o in levels if o.panel == name and o.value is None}) for name in names)
    figure, panels = sheet(len(names), _HEIGHT + (shelf_height(most) if most else 0.0))
    for panel, name in zip(panels, names, strict=True):
        own = [level for level in levels if level.panel == name]
        _across(panel, sorted({level.setting for level in own}), panel_width(figure))
        bars = _lines(panel, own, unit, looks)
        lost = {v: [o.setting for o in own if o.variant == v and o.value is None] for v in looks}
        lost = {variant: at for variant, at in lost.items() if at}
        line = _up(panel, bars, len(lost))
        if lost:
            shelf(panel, line, "out of memory", lost, looks)
        if not bars:
            panel.set_yticks([])
        panel.set_title(wrapped(name, panel_width(figure)), fontsize=TEXT_SIZE)
        quiet(panel)
    outer_labels(panels, setting, wrapped(axis_text(metric, unit) + better(direction), _INSIDE))
    handles = [Line2D([], [], **line_of(look, place)) for place, look in enumerate(looks.values())]
    kept = [place for place, variant in enumerate(looks) if any(o.variant == variant for o in levels)]
    legend_below(figure, [handles[place] for place in kept], [list(looks)[place] for place in kept])
    return figure


def _across(panel: Axes, settings: Sequence[float], width: float) -> None:
    """The axis of the settings, a tick at each that has room for its number."""
    if spans(settings, _DOUBLINGS):
        panel.set_xscale("log", base=2)
        margin = (settings[-1] / settings[0]) ** 0.06
        low, high = settings[0] / margin, settings[-1] * margin
        places = [math.log(s / low) / math.log(high / low) * width for s in settings]
    else:
        margin = room(settings[0], settings[-1], 0.06)
        low, high = settings[0] - margin, settings[-1] + margin
        places = [(s - low) / (high - low) * width for s in settings]
    panel.set_xlim(low, high)
    kept: list[int] = []
    texts = [short(s, 6) for s in settings]
    for place in range(len(settings) - 1, -1, -1):
        needed = (inches(texts[place], SMALL) + inches(texts[kept[-1]], SMALL)) / 2 + 0.08 if kept else 0.0
        if not kept or places[kept[-1]] - places[place] >= needed:
            kept.append(place)
    named_ticks(panel.xaxis, [settings[k] for k in kept[::-1]], [texts[k] for k in kept[::-1]])


def _lines(panel: Axes, levels: Sequence[Level], unit: str, looks: Mapping[str, Style]) -> list[Bar]:
    """A line a variant; returns all that is drawn, in the unit people read."""
    drawn: list[Bar] = []
    for place, (variant, look) in enumerate(looks.items()):
        own = sorted((o for o in levels if o.variant == variant), key=lambda level: level.setting)
        known = [(o.setting, ends(o.value, unit)) for o in own if o.value is not None and is_known(o.value)]
        at, bars = [setting for setting, _ in known], [bar for _, bar in known]
        error_bars(panel, at, [(low, high) for _, low, high in bars], look.colour, upright=True)
        panel.plot(at, [mean for mean, _, _ in bars], **line_of(look, place))
        drawn += bars
    return drawn


def _up(panel: Axes, bars: Sequence[Bar], rows: int) -> float:
    """Scale and limits of the values' axis; returns where the zone of those out of memory starts.

    `rows` is how many rows of marks it must hold.
    """
    means = [mean for mean, _, _ in bars] or [0.0, 1.0]
    is_log = spans(means, _DECADE)
    lows = [min(mean, low) for mean, low, _ in bars if low > 0 or not is_log]
    low, high = min([*means, *lows]), max([*means, *(high for *_, high in bars)])
    to, back = (math.log, math.exp) if is_log else (float, float)
    margin = room(to(low), to(high), 0.07)
    bottom, line = to(low) - margin, back(to(high) + margin)
    share = shelf_height(rows) / (_INSIDE + shelf_height(rows)) if rows else 0.0
    panel.set_yscale("log" if is_log else "linear")
    panel.set_ylim(back(bottom), back(bottom + (to(line) - bottom) / (1 - share)))
    ticks(panel.yaxis, 5)
    return line
