"""Numbers as people read them: units, digits, signs."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmexp_analysis.numbers.compare import Comparison, Row

MIB = 2**20
NOTHING = "-"


def scaled(value: float, unit: str) -> float:
    """`value` in the unit people read: bytes become MiB."""
    return value / MIB if unit == "bytes" else value


def shown_unit(unit: str) -> str:
    """The unit of `scaled` numbers, empty for plain ones."""
    return {"bytes": "MiB", "1": "", "fraction": ""}.get(unit, unit)


def word(result: str) -> str:
    """A result or verdict as pages say it: what report.json calls inconclusive is not settled."""
    return "not settled" if result == "inconclusive" else result


def number(value: float | None, digits: int = 4) -> str:
    """`value` with so many significant digits, in powers of ten only outside 1e-4 to 1e7."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def mean_std(row: "Row | None") -> str:
    """mean±std, to the two leading digits of the std; the mean alone where nothing varies."""
    if row is None or row.mean is None:
        return NOTHING
    mean = scaled(row.mean, row.unit)
    std = scaled(row.std, row.unit) if row.std is not None else 0.0
    if std <= 1e-9 * abs(mean):
        return number(mean)
    power = math.floor(math.log10(float(f"{std:.1e}")))  # read from the std as it is shown: 0.0999 is 0.10
    digits = min(6, max(0, 1 - power))
    return f"{mean:.{digits}f}±{std:.{digits}f}"


def percent(fraction: float | None) -> str:
    """A relative difference as a signed percentage."""
    return NOTHING if fraction is None else f"{100 * fraction:+.1f}%"


def change(one: "Comparison | None") -> str:
    """A comparison's relative difference, or its absolute one where the values have no ratio."""
    if one is None or one.relative_difference is not None or one.mean_difference is None:
        return percent(one.relative_difference if one else None)
    text = number(scaled(one.mean_difference, one.unit), digits=3)
    sign = "+" if one.mean_difference > 0 else ""
    return f"{sign}{text} {shown_unit(one.unit)}".rstrip()


def probability(p: float | None) -> str:
    """A p-value; below 0.001 only that."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def margin_probability(p: float | None) -> str:
    """The p-value of a margin; above 0.5 only that, which is as far as one in sigmas is computed."""
    return probability(p) if p is None or p < 0.5 else "≥0.5"
