"""Transforms pairs into the numbers that are tested, and tested numbers into those that a report shows.

Ratios are tested as logarithms, as is usual for bioequivalence: a relative change of pairs is then a mean,
and its interval never reaches -100 %.
"""

import math

import numpy as np

from pmexp.protocol import Statistic
from pmexp_analysis.numbers.stats import Array, t_interval

_DIGITS = 12
_SURE_DIGITS = 15  # those of a sum or a difference
_LARGEST = 709.0  # exp of more overflows


class Undefined(Exception):
    """The statistic is not defined for these numbers; the message says why."""


def sample(statistic: Statistic, method: Array, reference: Array, sigma: float) -> Array:
    """Returns `samples` of one comparison, shape (n,). Raises Undefined where there is no such statistic."""
    sample_of = samples(statistic, method, reference, np.asarray(sigma))
    if np.isnan(sample_of).any():
        raise Undefined(undefined(statistic))
    return sample_of


def undefined(statistic: Statistic) -> str:
    """Why a statistic of finite numbers is not defined."""
    if statistic is Statistic.difference_in_sigma:
        return "the baseline does not vary over its seeds"
    if statistic is Statistic.own:
        return "its function gives no number for some of the pairs"
    return "a ratio needs numbers above zero"


def samples(statistic: Statistic, method: Array, reference: Array, sigma: Array) -> Array:
    """The numbers whose mean is tested, out of pairs; all of shape (..., n), the seeds last.

    `sigma`: the baseline's standard deviation over its seeds, shape (...). A sample for which the statistic
    is not defined is NaN.
    """
    if statistic is Statistic.mean:
        return method
    differences = method - reference
    if statistic is Statistic.difference:
        return differences
    if statistic is Statistic.difference_in_sigma:
        is_equal = np.logical_not(differences.any(axis=-1, keepdims=True))
        scale = np.expand_dims(np.where(sigma > 0, sigma, np.nan), -1)
        return np.where(is_equal, differences, differences / scale)
    has_ratio = ((method > 0) & (reference > 0)).all(axis=-1, keepdims=True)
    ours, theirs = (np.where(has_ratio, side, np.nan) for side in (method, reference))
    change = np.log(ours) - np.log(theirs)  # a ratio could overflow
    return np.asarray(-change if statistic is Statistic.times_smaller else change)


def relative_change(method: Array, reference: Array) -> Array:
    """Returns exp(mean log(method / reference)) - 1 of pairs (shape (..., n) each), fractions of shape (...).

    Every table, figure and sentence takes the relative change from here. Its sign is that of the difference,
    for negative numbers too: a method that is all zero is -1 for positive references and 1 for negative ones.
    NaN where zeros or two signs leave no ratio.
    """
    changes = np.where((method - reference).any(axis=-1), np.nan, 0.0)
    for sign in (1, -1):
        ours, theirs = sign * method, sign * reference
        has_reference = (theirs > 0).all(axis=-1)
        change = samples(Statistic.relative_change, ours, theirs, np.asarray(np.nan)).mean(axis=-1)
        changes = np.where(has_reference & (ours > 0).all(axis=-1), sign * _each_said(change), changes)
        nothing_left = has_reference & np.logical_not(ours.any(axis=-1))
        changes = np.where(nothing_left, -1.0 * sign, changes)
    return np.asarray(changes)


def relative_interval(method: Array, reference: Array) -> tuple[Array, Array]:
    """Returns the 95 % t interval of `relative_change`; NaN for one pair, and for numbers up to zero."""
    low, high = t_interval(samples(Statistic.relative_change, method, reference, np.asarray(np.nan)))
    return _each_said(low), _each_said(high)


def _each_said(changes: Array) -> Array:
    fractions = [said(Statistic.relative_change, change) for change in np.ravel(changes).tolist()]
    return np.array(fractions).reshape(np.shape(changes))


def said(statistic: Statistic, tested: float) -> float:
    """Returns a tested number as a report shows it: a logarithm of a ratio as a fraction or a ratio.

    It is rounded to the digits that survive the logarithm, or the sum: 8 times smaller is at least 8 times
    smaller, and the mean of runs that are all on a threshold is on it.
    """
    if statistic is Statistic.relative_change:
        return round(math.expm1(min(tested, _LARGEST)), _DIGITS)
    if statistic is Statistic.times_smaller:
        return float(f"{math.exp(min(tested, _LARGEST)):.{_DIGITS}g}")
    return float(f"{tested:.{_SURE_DIGITS}g}")


def tested(statistic: Statistic, said: float) -> float:
    """Inverts `said`; returns minus infinity for a change of -1 or less, and for a ratio of zero or less."""
    if statistic is Statistic.relative_change:
        return math.log1p(said) if said > -1 else -math.inf
    if statistic is Statistic.times_smaller:
        return math.log(said) if said > 0 else -math.inf
    return said
