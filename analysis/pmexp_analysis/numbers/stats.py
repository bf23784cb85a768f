"""Statistics of few seeds, as pure functions of arrays. None stands for "not defined for these numbers"."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special
from statsmodels.stats.power import TTestPower

Array = npt.NDArray[np.float64]
Verdict = Literal[
    "better", "worse", "different", "equivalent", "inconclusive", "equal", "identical", "not comparable"
]
SIGNIFICANCE = 0.05
_SMALL = 1e-140  # squares of smaller numbers, and of the inverse of smaller ones, leave the range of floats
POWER = 0.8  # of the smallest detectable effect
FEWEST_PAIRS = 3  # of a sampled metric: with two the spread is known from one number


@dataclass(frozen=True)
class SampleSummary:
    """One sample; every number in the unit of the values, `std` with n-1 in the denominator."""

    n: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None


@dataclass(frozen=True)
class TTest:
    """A t statistic and its two-sided p."""

    t: float | None
    p: float | None


def describe(values: Array) -> SampleSummary:
    """n, mean, sample std, min and max of `values` (shape (n,), finite)."""
    if values.size == 0:
        return SampleSummary(0, None, None, None, None)
    std = spread(values) if values.size > 1 else None
    return SampleSummary(values.size, float(values.mean()), std, float(values.min()), float(values.max()))


def spread(values: Array) -> float:
    """Sample standard deviation of `values` (shape (n,), n >= 2), also of numbers whose squares over- or
    underflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = float(values.std(ddof=1))
    if _SMALL < found < 1 / _SMALL:
        return found
    power = math.frexp(float(np.abs(values).max()))[1] - 1  # of two: dividing by it rounds nothing
    return math.ldexp(float(np.ldexp(values, -power).std(ddof=1)), power)


def is_constant(values: Array, magnitude: float) -> bool:
    """Whether `values` (shape (n,)) are one number, up to the rounding of the numbers of up to `magnitude`
    that they were computed from."""
    return bool(np.ptp(values) <= _rounding(magnitude))


def _rounding(magnitude: float) -> float:
    return 4 * float(np.finfo(np.float64).eps) * magnitude


def constant_difference(variant: Array, baseline: Array) -> bool:
    """Whether all pairs (shape (n,) each, n >= 2) differ by one number, up to the rounding of the values.

    A difference that is itself no more than rounding is not called constant."""
    if variant.size < 2:
        return False
    differences, magnitude = variant - baseline, float(max(np.abs(variant).max(), np.abs(baseline).max()))
    return is_constant(differences, magnitude) and np.abs(differences).min() > _rounding(magnitude)


def paired_t(differences: Array) -> TTest:
    """t-test that the mean of `differences` (shape (n,), not all equal) is zero, n-1 degrees of freedom."""
    n = differences.size
    if n < 2:
        return TTest(None, None)
    error = spread(differences) / n**0.5
    if error == 0:
        return TTest(None, None)
    t = float(differences.mean()) / error
    return TTest(t, float(2 * special.stdtr(n - 1, -abs(t))))


def t_interval(values: Array, level: float = 0.95) -> tuple[float, float] | None:
    """t interval of the mean of `values` (shape (n,)), in their unit; None for n < 2."""
    n = values.size
    if n < 2:
        return None
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * spread(values) / n**0.5
    mean = float(values.mean())
    return mean - half, mean + half


def p_above(differences: Array) -> float | None:
    """One-sided p of the t-test that the mean of `differences` (shape (n,), n >= 2) is not above zero."""
    if differences.size < 2:
        return None
    mean, error = float(differences.mean()), spread(differences) / differences.size**0.5
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(special.stdtr(differences.size - 1, -mean / error))


def tost(values: Array, low: float, high: float) -> float | None:
    """p of two one-sided t-tests that the mean of `values` (shape (n,), n >= 2) lies outside [low, high].

    Schuirmann (1987): below 0.05 the mean is equivalent to zero within the margin, which is when the 90 %
    interval lies inside it.
    """
    below, above = p_above(values - low), p_above(high - values)
    return None if below is None or above is None else max(below, above)


def welch_t(variant: Array, baseline: Array) -> TTest:
    """Unpaired t-test with unequal variances of two samples (shapes (n,) and (m,))."""
    n, m = variant.size, baseline.size
    if n < 2 or m < 2:
        return TTest(None, None)
    a, b = spread(variant) / n**0.5, spread(baseline) / m**0.5
    error = math.hypot(a, b)  # neither over- nor underflows
    if error == 0:
        return TTest(None, None)
    t = float(variant.mean() - baseline.mean()) / error
    share = (a / error) ** 2  # of the variance
    freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1))
    return TTest(t, float(2 * special.stdtr(freedom, -abs(t))))


def effect_size(differences: Array) -> float | None:
    """Cohen's d of pairs: mean over standard deviation of `differences` (shape (n,))."""
    if differences.size < 2:
        return None
    std = spread(differences)
    return float(differences.mean()) / std if std > 0 else None


def probability_greater(variant: Array, baseline: Array) -> float | None:
    """P(a value of `variant` > one of `baseline`) + P(equal) / 2, over all pairs of both (shapes (n,), (m,)).

    The Mann-Whitney U over n m; Vargha and Delaney's A (2000).
    """
    if not variant.size or not baseline.size:
        return None
    others = np.sort(baseline)
    below, up_to = (np.searchsorted(others, variant, side).sum() for side in ("left", "right"))
    return float(below + up_to) / (2 * variant.size * others.size)


def detectable_difference(differences: Array) -> float | None:
    """The smallest mean of such `differences` (shape (n,), n >= 2) that the paired t-test finds at 0.05 with
    a power of 0.8, in their unit."""
    if differences.size < 2:
        return None
    return detectable_effect(differences.size) * spread(differences)


@lru_cache
def detectable_effect(n: int) -> float:
    """The same as an effect size."""
    power = TTestPower().solve_power(None, nobs=n, alpha=SIGNIFICANCE, power=POWER)
    return float(np.squeeze(power))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction (1979) over those of `ps` that are defined; the others stay None.

    Of m, the k-th smallest is multiplied by m - k + 1, and is no smaller than the one before.
    """
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        corrected[place] = least
    return corrected


def verdict(difference: float, direction: str, significant: bool, equivalent: bool) -> Verdict:
    """What a nonzero comparison says. Inside the margin it is equivalent, significant or not; else it goes by
    the metric's direction where it is significant."""
    if equivalent:
        return "equivalent"
    if not significant:
        return "inconclusive"
    if direction == "none":
        return "different"
    return "better" if (difference > 0) == (direction == "max") else "worse"


def pareto_front(costs: Array) -> npt.NDArray[np.bool_]:
    """Which points (rows of `costs`, shape (points, axes), less is better) no other point beats: as good on
    every axis and better on one. Shape (points,)."""
    no_worse = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    better = (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    return np.logical_not((no_worse & better).any(axis=0))
