"""Rows and comparisons as the cells of a table say them."""

import math

from pmexp_analysis.numbers.cells import NOTHING, number, percent, scaled, shown_unit
from pmexp_analysis.numbers.compare import Comparison, Row


def mean_std(row: Row | None) -> str:
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


def change(one: Comparison | None) -> str:
    """A comparison's relative difference, or its absolute one where the values have no ratio."""
    if one is None or one.relative_difference is not None or one.mean_difference is None:
        return percent(one.relative_difference if one else None)
    text = number(scaled(one.mean_difference, one.unit), digits=3)
    sign = "+" if one.mean_difference > 0 else ""
    return f"{sign}{text} {shown_unit(one.unit)}".rstrip()
