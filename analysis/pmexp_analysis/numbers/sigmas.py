"""A mean difference over the baseline's standard deviation, where both are estimates.

With few seeds the deviation is easily off by a factor of two, and a margin of so many sigmas with it: were it
taken for known, a difference on the margin would pass in up to half of all experiments. The intervals
of the mean and of the deviation are combined as by Hyslop, Hsuan and Holder (2000) for bioequivalence with a
margin scaled by the reference; of normal values mean and deviation are independent.
"""

import math
from collections.abc import Callable

from scipy import optimize, special

from pmexp_analysis.numbers.scales import Undefined
from pmexp_analysis.numbers.stats import Array, spread

_SMALLEST_P = 1e-9


def interval(differences: Array, baseline: Array, level: float) -> tuple[float, float]:
    """Interval of the mean of `differences` (shape (n,), n >= 2) in standard deviations of `baseline` (shape
    (m,)), with (1 - level) / 2 outside on either side. Raises Undefined where the baseline does not vary."""
    if not differences.any():
        return 0.0, 0.0
    sigma = spread(baseline) if baseline.size > 1 else 0.0
    if sigma == 0:
        raise Undefined("the baseline does not vary over its seeds")
    n, freedom, tail = differences.size, baseline.size - 1, (1 - level) / 2
    mean = float(differences.mean())
    error = float(-special.stdtrit(n - 1, tail)) * spread(differences) / n**0.5
    low, high = (sigma * (freedom / float(special.chdtri(freedom, 1 - p))) ** 0.5 for p in (1 - tail, tail))
    return -_upper(-mean, error, sigma, low, high), _upper(mean, error, sigma, low, high)


def _upper(mean: float, error: float, sigma: float, low: float, high: float) -> float:
    """The c at which the upper limit of mean - c sigma is zero: (mean - c sigma)^2 = error^2 + (c f)^2, where
    f is how far sigma may lie on the side that counts."""
    if mean + error > 0:
        f = sigma - low
        square = sigma**2 - f**2
        return (mean * sigma + math.sqrt((mean * f) ** 2 + error**2 * square)) / square
    if mean == error == 0:  # of equal methods: nothing is allowed for, and nothing is off
        return 0.0
    f = high - sigma
    root = math.sqrt(max(0.0, (mean * f) ** 2 + error**2 * (sigma**2 - f**2)))
    return -(mean**2 - error**2) / (root - mean * sigma)


def tost(differences: Array, baseline: Array, margin: float) -> float | None:
    """p of equivalence within `margin` standard deviations: the level at which the interval just fits.

    None for n < 2; 0.5 stands for all p above it. Raises Undefined as `interval` does.
    """
    return _level_at_which(differences, baseline, lambda low, high: max(high, -low) - margin)


def p_beyond(differences: Array, baseline: Array, margin: float) -> float | None:
    """One-sided p that the mean is `margin` standard deviations or more.

    The level at which the upper end of the interval just reaches it. None, 0.5 and Undefined as of `tost`.
    """
    return _level_at_which(differences, baseline, lambda _, high: high - margin)


def _level_at_which(
    differences: Array, baseline: Array, outside: Callable[[float, float], float]
) -> float | None:
    """The p at which `outside`, of the ends of the interval with p on either side, is zero."""
    if differences.size < 2:
        return None

    def at(p: float) -> float:
        return outside(*interval(differences, baseline, 1 - 2 * p))

    if at(_SMALLEST_P) <= 0:
        return 0.0
    if at(0.5) >= 0:
        return 0.5
    return float(optimize.brentq(at, _SMALLEST_P, 0.5))
