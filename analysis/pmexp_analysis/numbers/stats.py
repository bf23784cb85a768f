"""Statistics of few seeds, as pure functions of arrays whose last axis is the seeds: (..., n) gives (...).

So thousands of samples of one size take one call. NaN stands for "not defined for these numbers".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Verdict = Literal[
    "better", "worse", "different", "equivalent", "inconclusive", "equal", "identical", "not comparable"
]
SIGNIFICANCE = 0.05
_SMALL = 1e-140  # the squares of smaller numbers underflow, those of numbers above its inverse overflow
_SCORES_DIFFER = 1e-12  # two scores, which are fractions, differ by more; less is rounding
POWER = 0.8  # the probability of finding the smallest effect that is called detectable
FEWEST_PAIRS = 3  # a sampled metric needs them: with two the spread is known from one number


@dataclass(frozen=True)
class SampleSummary:
    """One sample; every number in the unit of the values, `std` with n-1 in the denominator."""

    n: int
    mean: float | None
    std: float | None


class TTest(NamedTuple):
    """t statistics and their two-sided p, of shape (...)."""

    t: Array
    p: Array


def describe(values: Array) -> SampleSummary:
    """n, mean and sample std of `values` (shape (n,), finite)."""
    if values.size == 0:
        return SampleSummary(0, None, None)
    std = float(spread(values)) if values.size > 1 else None
    return SampleSummary(values.size, float(values.mean()), std)


def spread(values: Array) -> Array:
    """Sample standard deviation of `values` (shape (..., n)), also of numbers whose squares over- or
    underflow; 0 where they are one number, whatever rounding makes of their mean; NaN for n < 2."""
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        std = np.asarray(values.std(axis=-1, ddof=1))
    is_one = (values == values[..., :1]).all(axis=-1)
    in_range = (std > _SMALL) & (std < 1 / _SMALL)
    if in_range.all() and not is_one.any():
        return std
    powers = np.frexp(np.abs(values).max(axis=-1))[1] - 1  # to divide by powers of two rounds nothing
    apart = np.ldexp(np.ldexp(values, -np.expand_dims(powers, -1)).std(axis=-1, ddof=1), powers)
    return np.where(is_one, 0.0, np.where(in_range, std, apart))


def is_constant(values: Array, magnitude: Array) -> Mask:
    """Whether `values` (shape (..., n)) are one number, up to the rounding of the numbers of up to
    `magnitude` (shape (...)) that they were computed from."""
    return np.asarray(np.ptp(values, axis=-1) <= _rounding(magnitude))


def _rounding(magnitude: Array) -> Array:
    return 4 * float(np.finfo(np.float64).eps) * magnitude


def constant_difference(variant: Array, baseline: Array) -> Mask:
    """Whether all pairs (shape (..., n) each) differ by one number, up to the rounding of the values.

    A difference that is itself no more than rounding is not called constant; nor is that of one pair."""
    if variant.shape[-1] < 2:
        return np.zeros(variant.shape[:-1], dtype=bool)
    differences = variant - baseline
    magnitude = np.maximum(np.abs(variant).max(axis=-1), np.abs(baseline).max(axis=-1))
    is_more = np.abs(differences).min(axis=-1) > _rounding(magnitude)
    return np.asarray(is_constant(differences, magnitude) & is_more)


def paired_t(differences: Array) -> TTest:
    """t-test that the mean of `differences` (shape (..., n)) is zero, n-1 degrees of freedom.

    NaN for n < 2, and for differences that do not vary."""
    n = differences.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = differences.mean(axis=-1) / (spread(differences) / n**0.5)
    t = np.where(np.isinf(t), np.nan, t)
    return TTest(t, 2 * special.stdtr(n - 1, -np.abs(t)))


def t_interval(values: Array, level: float = 0.95) -> tuple[Array, Array]:
    """t interval of the mean of `values` (shape (..., n)), in their unit; NaN for n < 2."""
    n = values.shape[-1]
    half = special.stdtrit(n - 1, (1 + level) / 2) * spread(values) / n**0.5
    mean = values.mean(axis=-1)
    return mean - half, mean + half


def p_above(differences: Array) -> Array:
    """One-sided p of the t-test that the mean of `differences` (shape (..., n)) is not above zero; NaN for
    n < 2."""
    n = differences.shape[-1]
    if n < 2:
        return np.full(differences.shape[:-1], np.nan)
    mean, error = differences.mean(axis=-1), spread(differences) / n**0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        p = special.stdtr(n - 1, -mean / error)
    return np.where(error == 0, np.where(mean > 0, 0.0, 1.0), p)


def half_step(scores: Array, n: int) -> float:
    """Half a step of the mean of `n` scores: the continuity correction of its intervals and tests.

    Scores are multiples of a step, of which the smallest gap between two of `scores` (shape (m,)) is an
    estimate. A t interval of coarse ones is too short: without this up to 7 % pass wrongly where 5 % may.
    """
    gaps = np.diff(np.unique(scores))
    gaps = gaps[gaps > _SCORES_DIFFER]
    return float(gaps.min()) / (2 * n) if gaps.size else 0.0


def tost(lower: Array, upper: Array, low: float, high: float) -> Array:
    """p of two one-sided t-tests that the mean of values lies outside [low, high].

    lower, upper: the values (shape (..., n)) against either end; of scores, further out by `half_step`.

    Schuirmann (1987): below 0.05 the mean is equivalent to zero within the margin, which is when the 90 %
    interval lies inside it. NaN for n < 2.
    """
    return np.maximum(p_above(lower - low), p_above(high - upper))


def welch_t(variant: Array, baseline: Array) -> TTest:
    """Welch's unpaired t-test (1947) of two samples (shapes (..., n) and (..., m)) with unequal variances.

    Degrees of freedom by Welch and Satterthwaite. NaN for n or m < 2, and where neither side varies.
    """
    n, m = variant.shape[-1], baseline.shape[-1]
    a, b = spread(variant) / n**0.5, spread(baseline) / m**0.5
    error = np.hypot(a, b)  # neither over- nor underflows
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error == 0, np.nan, (variant.mean(axis=-1) - baseline.mean(axis=-1)) / error)
        share = (a / error) ** 2  # the variant's share of the squared error
        freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1)) if min(n, m) > 1 else np.nan
    return TTest(t, 2 * special.stdtr(freedom, -np.abs(t)))


def effect_size(differences: Array) -> Array:
    """Cohen's d of pairs (d_z of Cohen, 1988): mean of `differences` (shape (..., n)) over their standard
    deviation, without a unit; NaN for n < 2, and for differences that do not vary."""
    std = spread(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(std > 0, differences.mean(axis=-1) / std, np.nan)


def probability_greater(variant: Array, baseline: Array) -> Array:
    """P(a value of `variant` > one of `baseline`) + P(equal) / 2, over all pairs of both (shapes (..., n),
    (..., m); n, m >= 1).

    It is Mann and Whitney's U divided by n m, the A of Vargha and Delaney (2000).
    """
    ours, theirs = np.expand_dims(variant, -1), np.expand_dims(baseline, -2)
    twice = np.count_nonzero(ours > theirs, axis=(-2, -1)) + np.count_nonzero(ours >= theirs, axis=(-2, -1))
    return np.asarray(twice / (2 * variant.shape[-1] * baseline.shape[-1]))


def detectable_difference(differences: Array) -> Array:
    """The smallest mean that the paired t-test of as many new pairs finds at 0.05 with a power of 0.8, in the
    unit of `differences` (shape (..., n)); NaN for n < 2."""
    n = differences.shape[-1]
    return detectable_effect(n) * spread(differences) if n > 1 else spread(differences)


@lru_cache
def detectable_effect(n: int) -> float:
    """The smallest effect that the two-sided paired t-test of n >= 2 new pairs finds at 0.05 with a power of
    0.8, in standard deviations of n pairs that are there.

    That these are known from n pairs alone is counted in, as Julious and Owen (2006) do: 0.8 is the mean over
    what the true one may be. The wrong side, where a test finds next to nothing, is left out.
    """
    critical = special.stdtrit(n - 1, 1 - SIGNIFICANCE / 2)
    return float(special.nctdtrit(n - 1, critical, POWER) / n**0.5)


def line(x: Array, y: Array) -> tuple[float, float]:
    """The slope of the line of least squares through points (shape (n,) each, n >= 3; not all `x` alike), and
    its standard error, both in the unit of `y` over that of `x`."""
    across, up = x - x.mean(), y - y.mean()
    square = float(across @ across)
    slope = float(across @ up) / square
    rest = up - slope * across
    return slope, (float(rest @ rest) / (x.size - 2) / square) ** 0.5


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction (1979) over those of `ps` that are defined; the others stay None.

    The k-th smallest of m is multiplied by m - k + 1, and is no smaller than the one before and at most 1.
    """
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        corrected[place] = least
    return corrected


def verdict(difference: float, direction: str, significant: bool, equivalent: bool) -> Verdict:
    """Returns the verdict on a difference (variant - baseline) that is not zero: equivalent inside the
    margin, significant or not; else, where it is significant, by `direction` (min, max or none)."""
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
