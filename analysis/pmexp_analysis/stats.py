"""Statistics of few seeds, as pure functions of arrays. None stands for "not defined for these numbers"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests

Array = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "different", "inconclusive", "identical", "not comparable"]
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Description:
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


def describe(values: Array) -> Description:
    """n, mean, sample std, min and max of `values` (shape (n,), finite)."""
    if values.size == 0:
        return Description(0, None, None, None, None)
    std = float(values.std(ddof=1)) if values.size > 1 else None
    return Description(values.size, float(values.mean()), std, float(values.min()), float(values.max()))


def constant_difference(variant: Array, baseline: Array) -> bool:
    """Whether all pairs (shape (n,) each, n >= 2) differ by one number, up to the rounding of the values."""
    if variant.size < 2:
        return False
    rounding = 4 * np.finfo(np.float64).eps * max(np.abs(variant).max(), np.abs(baseline).max())
    return bool(np.ptp(variant - baseline) <= rounding)


def paired_t(differences: Array) -> TTest:
    """t-test that the mean of `differences` (shape (n,), not all equal) is zero, n-1 degrees of freedom."""
    n = differences.size
    if n < 2:
        return TTest(None, None)
    error = float(differences.std(ddof=1)) / n**0.5
    if error == 0:
        return TTest(None, None)
    t = float(differences.mean()) / error
    return TTest(t, float(2 * stats.t.sf(abs(t), n - 1)))


def paired_interval(differences: Array, level: float = 0.95) -> tuple[float, float] | None:
    """t interval of the mean of `differences` (shape (n,)), in their unit; None for n < 2."""
    n = differences.size
    if n < 2:
        return None
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(differences.std(ddof=1)) / n**0.5
    mean = float(differences.mean())
    return mean - half, mean + half


def welch_t(variant: Array, baseline: Array) -> TTest:
    """Unpaired t-test with unequal variances of two samples (shapes (n,) and (m,))."""
    n, m = variant.size, baseline.size
    if n < 2 or m < 2:
        return TTest(None, None)
    a, b = float(variant.var(ddof=1)) / n, float(baseline.var(ddof=1)) / m
    if a + b == 0:
        return TTest(None, None)
    t = float(variant.mean() - baseline.mean()) / (a + b) ** 0.5
    # Welch-Satterthwaite in shares of the variance, so that tiny variances do not underflow when squared.
    share = a / (a + b)
    freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1))
    return TTest(t, float(2 * stats.t.sf(abs(t), freedom)))


def effect_size(differences: Array) -> float | None:
    """Cohen's d of pairs: mean over standard deviation of `differences` (shape (n,))."""
    if differences.size < 2:
        return None
    std = float(differences.std(ddof=1))
    return float(differences.mean()) / std if std > 0 else None


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over those of `ps` that are defined; the others stay None."""
    places = [place for place, p in enumerate(ps) if p is not None]
    corrected: list[float | None] = [None] * len(ps)
    if places:
        for place, p in zip(places, multipletests([ps[i] for i in places], method="holm")[1], strict=True):
            corrected[place] = float(p)
    return corrected


def verdict(difference: float, direction: str, holm_p: float | None, is_constant: bool) -> Verdict:
    """What a nonzero comparison says: by the metric's direction where it is significant or constant."""
    if not is_constant and (holm_p is None or holm_p >= SIGNIFICANCE):
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
