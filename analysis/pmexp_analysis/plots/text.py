"""The words and numbers on a figure: labels that are broken where they would not fit, ticks, the legend."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedFormatter, FixedLocator, Formatter, MaxNLocator, NullLocator

from pmexp_analysis.numbers.cells import shown_unit
from pmexp_analysis.numbers.scores import label_of
from pmexp_analysis.plots.looks import SMALL, TEXT_SIZE

_LINE = 1.25 * TEXT_SIZE / 72  # inches
_HANDLE = 3.6 * TEXT_SIZE / 72  # inches that a legend needs beside its text
_SMALLEST_SPAN = 1e-5  # values that differ by a smaller fraction of their size are drawn as equal
_BETTER = {"min": "less is better", "max": "more is better"}


def axis_text(metric: str, unit: str) -> str:
    """The metric's label with the unit people read."""
    shown = shown_unit(unit)
    return f"{label_of(metric)} [{shown}]" if shown else label_of(metric)


def better(direction: str) -> str:
    """A second line that says which end is better; nothing for metrics that are only observed."""
    return f"\n({_BETTER[direction]})" if direction in _BETTER else ""


@lru_cache(maxsize=4096)
def inches(text: str, size: float = TEXT_SIZE) -> float:
    """How wide the widest line of `text` is drawn."""
    font = FontProperties(size=size)
    widths = [
        text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")
    ]
    return float(max(widths)) / 72


def wrapped(text: str, width: float, size: float = TEXT_SIZE) -> str:
    """`text` in lines no wider than `width` inches, broken after blanks and, in names, after / - _ only."""
    return "\n".join(_wrapped_line(line, width, size) for line in text.split("\n"))


def _wrapped_line(text: str, width: float, size: float) -> str:
    lines = [""]
    for word in text.split(" "):
        pieces = [word] if inches(word, size) <= width else re.findall(r"[^/_-]*[/_-]|[^/_-]+", word)
        for place, piece in enumerate(pieces):
            joined = f"{lines[-1]}{' ' if place == 0 and lines[-1] else ''}{piece}"
            if lines[-1] and inches(joined, size) > width:
                lines.append(piece)
            else:
                lines[-1] = joined
    return "\n".join(lines)


def short(value: float, digits: int = 3) -> str:
    """`value` for a tick or a note, with so many significant digits: 1e-7 and not 1e-07."""
    if 1e-3 <= abs(value) < 1e7 or not math.isfinite(value) or value == 0:
        places = max(0, digits - 1 - _exponent(abs(value))) if value and math.isfinite(value) else 0
        text = f"{value:.{places}f}"
        return _tidy(text.rstrip("0").rstrip(".") if "." in text else text)
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    return _tidy(f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{power}")


def _tidy(number: str) -> str:
    """Without the plus and the zeros of an exponent, with the sign for minus."""
    number = re.sub(r"e([+-])0*(\d+)", lambda m: f"e{m[1].strip('+')}{m[2]}", number)
    return number.replace("-", "\N{MINUS SIGN}")


class _Plain(Formatter):
    """Plain numbers with the digits that tell one tick from the next, and never an offset."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return short(x)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        size = max((abs(float(value)) for value in values), default=0.0)
        if len(values) < 2 or size == 0:
            return [short(float(value)) for value in values]
        step = _exponent(abs(float(values[1] - values[0])))
        if 1e-4 <= size < 1e7:
            texts = [f"{value:.{max(0, -step)}f}" for value in values]
        else:
            digits = max(0, _exponent(size) - step)
            texts = [f"{value:.{digits}e}" if value else "0" for value in values]
        return [_tidy(text) for text in texts]


def _exponent(value: float) -> int:
    return math.floor(math.log10(value) + 1e-9)


def plain_ticks(axis: Axis, most: int, whole: bool = False) -> None:
    """At most about `most` ticks on a linear axis whose limits are set, at whole numbers alone where asked;
    equal values get some room."""
    low, high = axis.get_view_interval()
    least = _SMALLEST_SPAN * max(abs(low), abs(high))
    if abs(high - low) < least:
        middle = (low + high) / 2
        axis.axes.set(**{f"{axis.axis_name}lim": (middle - least / 2, middle + least / 2)})  # type: ignore[attr-defined]
    axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=whole, min_n_ticks=1))
    axis.set_major_formatter(_Plain())


def room(low: float, high: float, share: float) -> float:
    """What to leave beside low..high: a `share` of it, or of their size where they are as good as equal."""
    if high - low > _SMALLEST_SPAN * max(abs(low), abs(high)):
        return share * (high - low)
    return 0.05 * max(abs(low), abs(high)) or 1.0


def spans(values: Sequence[float], factor: float) -> bool:
    """Whether `values` are positive and the greatest is `factor` times the least: for a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= factor


def log_ticks(axis: Axis, most: int) -> None:
    """At most `most` ticks at 1, 2, 5 or powers of ten, on a logarithmic axis whose limits are set."""
    low, high = sorted(float(end) for end in axis.get_view_interval())
    first, last = _exponent(low), _exponent(high)
    for steps, stride in (*(((1, 2, 5), 1), ((1, 3), 1)), *(((1,), stride) for stride in range(1, 700))):
        ticks = [step * 10.0**power for power in range(first, last + 1, stride) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    named_ticks(axis, ticks, [short(tick) for tick in ticks])


def named_ticks(axis: Axis, places: Sequence[float], names: Sequence[str]) -> None:
    """Ticks exactly at `places`."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(names)))
    axis.set_minor_locator(NullLocator())


def ticks(axis: Axis, most: int) -> None:
    """Ticks for the scale and the limits that `axis` has."""
    (log_ticks if axis.get_scale() == "log" else plain_ticks)(axis, most)


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """The legend under all panels, in as many columns as fit; the figure grows by its height."""
    if not labels:
        return
    room = figure.get_figwidth() - 0.15
    texts = [wrapped(label, room - _HANDLE) for label in labels]
    texts = [f" {text}" if text.startswith("_") else text for text in texts]  # matplotlib would leave it out
    columns = min(len(texts), 6)
    while columns > 1 and _legend_width(texts, columns) > room:
        columns -= 1
    rows = -(-len(texts) // columns)
    lines = sum(max(text.count("\n") + 1 for text in texts[row::rows]) for row in range(rows))
    figure.set_figheight(figure.get_figheight() + lines * _LINE + 0.1)
    figure.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=TEXT_SIZE,
        columnspacing=1.2,
        handlelength=2.0,
        labelspacing=0.25,
        borderaxespad=0.2,
    )


def _legend_width(texts: Sequence[str], columns: int) -> float:
    """The legend fills its columns from the top, as even as it can."""
    rows, longer = divmod(len(texts), columns)
    width, start = 0.0, 0
    for column in range(columns):
        end = start + rows + (column < longer)
        width += max(inches(text) for text in texts[start:end]) + _HANDLE + 1.2 * TEXT_SIZE / 72
        start = end
    return width


def quiet(panel: Axes, grid: str = "both") -> None:
    """What every panel has: two spines, a faint grid, small ticks."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis=grid, alpha=0.25, linewidth=0.6)  # type: ignore[arg-type]
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=SMALL, length=3)
    if grid == "x":  # the rows have names
        panel.tick_params(axis="y", length=0)
