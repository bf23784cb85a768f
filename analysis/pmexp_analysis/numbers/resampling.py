"""Bootstrap intervals of many small samples at once."""

from functools import lru_cache

import numpy as np
from scipy import special

from pmexp_analysis.numbers.stats import Array, is_constant

_RESAMPLES = 2000
_AT_ONCE = 250_000  # products: few enough for the processor's cache, and for BLAS to start no threads


def bootstrap_intervals(samples: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Bias-corrected accelerated bootstrap intervals (Efron, 1987) of the mean of samples, shape (groups, n).

    NaN for n < 2; a constant sample's is its number. Five seeds are few for it: it comes out too narrow,
    which is why the t interval decides. All samples of one size share their resamples, and the same samples
    give the same intervals.
    """
    groups, n = samples.shape
    if n < 2:
        return np.full(groups, np.nan), np.full(groups, np.nan)
    constant = is_constant(samples, np.abs(samples).max(axis=-1))
    low, high = np.where(constant, samples[:, 0], np.nan), np.where(constant, samples[:, 0], np.nan)
    varying = np.flatnonzero(np.logical_not(constant))
    step = max(1, _AT_ONCE // _resamples(n)[0].size)
    for start in range(0, varying.size, step):
        part = varying[start : start + step]
        low[part], high[part] = _of_varying(samples[part], level)
    return low, high


@lru_cache
def _resamples(n: int) -> tuple[Array, Array]:
    """(how often a resample has each of n values, shape (distinct, n); how many resamples are so).

    A few values have few distinct resamples: 126 of five.
    """
    drawn = np.random.default_rng(0).integers(0, n, (_RESAMPLES, n))
    counts = np.stack([(drawn == value).sum(axis=1) for value in range(n)], axis=1)
    distinct, repeats = np.unique(counts, axis=0, return_counts=True)
    return distinct.astype(np.float64), repeats.astype(np.float64)


def _of_varying(values: Array, level: float) -> tuple[Array, Array]:
    """The intervals of samples (shape (groups, n)) that vary."""
    n = values.shape[1]
    # Tiny numbers would underflow when cubed; a power of two leaves ties among means as they are.
    scale = np.exp2(np.frexp(np.abs(values).max(axis=1))[1] - 1.0)
    values = values / scale[:, None]
    counts, repeats = _resamples(n)
    means, mean = values @ counts.T / n, values.mean(axis=1)
    close = (
        np.abs(means - mean[:, None]) <= 8 * np.finfo(np.float64).eps * np.abs(values).max(axis=1)[:, None]
    )
    below = np.where(close, 0.5, means < mean[:, None]) @ repeats / _RESAMPLES  # halves: their sum is exact
    bias = special.ndtri(below)
    without_one = (values.sum(axis=1, keepdims=True) - values) / (n - 1)  # the jackknife's means
    around = without_one.mean(axis=1, keepdims=True) - without_one
    acceleration = (around**3).sum(axis=1) / (6 * (around**2).sum(axis=1) ** 1.5)
    order = np.argsort(means, axis=1)
    ordered, up_to = np.take_along_axis(means, order, axis=1), np.cumsum(repeats[order], axis=1)
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + special.ndtri(tail)
        share = special.ndtr(bias + shifted / (1 - acceleration * shifted))
        ends.append(_quantile(ordered, up_to, share) * scale)
    return ends[0], ends[1]


def _quantile(ordered: Array, up_to: Array, share: Array) -> Array:
    """The quantile `share` (shape (groups,)) of the resamples' means by linear interpolation.

    `ordered` are the distinct means, `up_to` says how many resamples have this one or one before it.
    """
    place = share * (_RESAMPLES - 1)
    first = np.floor(place)
    either = []
    for rank in (first, np.minimum(first + 1, _RESAMPLES - 1)):
        column = (up_to > rank[:, None]).argmax(axis=1)  # the first that is
        either.append(np.take_along_axis(ordered, column[:, None], axis=1))
    return np.asarray((either[0] + (place - first)[:, None] * (either[1] - either[0]))[:, 0])
