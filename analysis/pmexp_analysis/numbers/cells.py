"""Numbers as people read them: units, digits, signs."""

import math

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


def percent(fraction: float | None) -> str:
    """A relative difference as a signed percentage."""
    return NOTHING if fraction is None else f"{100 * fraction:+.1f}%"


def probability(p: float | None) -> str:
    """A p-value; below 0.001 only that."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def margin_probability(p: float | None) -> str:
    """The p-value of a margin; above 0.5 only that, which is as far as one in sigmas is computed."""
    return probability(p) if p is None or p < 0.5 else "≥0.5"
