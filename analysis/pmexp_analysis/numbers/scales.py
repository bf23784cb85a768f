"""In which numbers a statistic of pairs is tested, and how they are said.

Ratios are tested as logarithms, as is usual for bioequivalence: a relative change of pairs is then a mean,
and its interval never reaches -100 %.
"""

import math

import numpy as np

from pmexp.protocol import Statistic
from pmexp_analysis.numbers.stats import Array, t_interval

_DIGITS = 12
_LARGEST = 709.0  # that exp takes


class Undefined(Exception):
    """The statistic is not defined for these numbers; the message says why."""


def sample(statistic: Statistic, method: Array, reference: Array, sigma: float | None) -> Array:
    """The numbers (shape (n,)) whose mean is tested, out of pairs (shape (n,) each).

    `sigma`: the baseline's standard deviation over its seeds. Raises Undefined.
    """
    if statistic is Statistic.mean:
        return method
    if statistic is Statistic.difference:
        return method - reference
    if statistic is Statistic.difference_in_sigma:
        if not (method - reference).any():
            return method - reference
        if not sigma:
            raise Undefined("the baseline does not vary over its seeds")
        return (method - reference) / sigma
    if (method <= 0).any() or (reference <= 0).any():
        raise Undefined("a ratio needs numbers above zero")
    change = np.log(method) - np.log(reference)  # a ratio could overflow
    return -change if statistic is Statistic.times_smaller else change


def relative_change(method: Array, reference: Array) -> float | None:
    """Returns the relative change of pairs (shape (n,) each), a fraction, as all that is said of it has it.

    Its sign is that of the difference, of negative numbers too.

    It is the mean logarithm of the ratios, said as a fraction. None where zeros or two signs leave no ratio.
    """
    for sign in (1, -1):
        ours, theirs = sign * method, sign * reference
        if (theirs > 0).all() and (ours > 0).all():
            mean = float(sample(Statistic.relative_change, ours, theirs, None).mean())
            return sign * said(Statistic.relative_change, mean)
        if (theirs > 0).all() and not ours.any():  # nothing is left of any pair
            return -1.0 * sign
    return None if (method - reference).any() else 0.0


def relative_interval(method: Array, reference: Array) -> tuple[float, float] | None:
    """Returns the 95 % t interval of `relative_change`; None of one pair or of numbers up to zero."""
    if (method <= 0).any() or (reference <= 0).any():
        return None
    ends = t_interval(sample(Statistic.relative_change, method, reference, None))
    return ends and (said(Statistic.relative_change, ends[0]), said(Statistic.relative_change, ends[1]))


def said(statistic: Statistic, tested: float) -> float:
    """A tested number as it is said: a relative change as a fraction, a ratio as a ratio.

    Without the digits that the logarithm rounded: 8 times smaller is at least 8 times smaller.
    """
    if statistic is Statistic.relative_change:
        return round(math.expm1(min(tested, _LARGEST)), _DIGITS)
    if statistic is Statistic.times_smaller:
        return float(f"{math.exp(min(tested, _LARGEST)):.{_DIGITS}g}")
    return tested


def tested(statistic: Statistic, said: float) -> float:
    """The opposite of `said`; minus infinity for what no ratio can reach."""
    if statistic is Statistic.relative_change:
        return math.log1p(said) if said > -1 else -math.inf
    if statistic is Statistic.times_smaller:
        return math.log(said) if said > 0 else -math.inf
    return said
