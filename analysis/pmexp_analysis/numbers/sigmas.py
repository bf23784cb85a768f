"""A mean difference over the baseline's standard deviation, where both are estimates.

With few seeds the deviation is easily off by a factor of two, and a margin of so many sigmas with it: were it
taken for known, a difference on the margin would pass in up to half of all experiments. The intervals
of the mean and of the deviation are combined as by Hyslop, Hsuan and Holder (2000) for bioequivalence with a
margin scaled by the reference; of normal values mean and deviation are independent.
"""

import numpy as np
from scipy import special
from scipy.optimize import elementwise

from pmexp_analysis.numbers.stats import Array, spread

_SMALLEST_P = 1e-9


def interval(differences: Array, baseline: Array, level: Array | float) -> tuple[Array, Array]:
    """Interval of the mean of `differences` (shape (..., n), n >= 2) in standard deviations of `baseline`
    (shape (..., m)), with (1 - level) / 2 outside on either side; level of shape (...) or a number.

    NaN where the baseline does not vary, unless all differences are zero."""
    n, freedom = differences.shape[-1], baseline.shape[-1] - 1
    tail = (1 - np.asarray(level)) / 2
    sigma = spread(baseline)
    sigma = np.where(sigma > 0, sigma, np.nan)
    mean = differences.mean(axis=-1)
    error = -special.stdtrit(n - 1, tail) * spread(differences) / n**0.5
    low, high = (sigma * np.sqrt(freedom / special.chdtri(freedom, 1 - p)) for p in (1 - tail, tail))
    ends = -_upper(-mean, error, sigma, low, high), _upper(mean, error, sigma, low, high)
    is_equal = np.logical_not(differences.any(axis=-1))
    return np.where(is_equal, 0.0, ends[0]), np.where(is_equal, 0.0, ends[1])


def _upper(mean: Array, error: Array, sigma: Array, low: Array, high: Array) -> Array:
    """The c at which the upper limit of mean - c sigma is zero: (mean - c sigma)^2 = error^2 + (c f)^2, where
    f is how far sigma may lie on the side that counts. All of shape (...)."""
    f = sigma - low
    square = sigma**2 - f**2
    above = (mean * sigma + np.sqrt((mean * f) ** 2 + error**2 * square)) / square
    f = high - sigma
    root = np.sqrt(np.maximum(0.0, (mean * f) ** 2 + error**2 * (sigma**2 - f**2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        below = -(mean**2 - error**2) / (root - mean * sigma)
    # Equal methods, whose mean and error are zero, are off by nothing, and nothing is allowed for.
    below = np.where((mean == 0) & (error == 0), 0.0, below)
    return np.where(mean + error > 0, above, below)


def tost(differences: Array, baseline: Array, margin: float, correction: Array | float = 0.0) -> Array:
    """p of equivalence within `margin` standard deviations: (1 - level) / 2 of the `interval` that just fits.

    `correction` (shape (...), in the unit of the differences) is how much each end lies further out.
    NaN for n < 2 and where `interval` is; 0.5 stands for all p above it.
    """
    out = np.expand_dims(correction, -1)
    return np.maximum(*(p_beyond(side * differences + out, baseline, margin) for side in (1, -1)))


def p_beyond(differences: Array, baseline: Array, margin: float) -> Array:
    """One-sided p that the mean of `differences` (shape (..., n)) is `margin` standard deviations or more.

    It is (1 - level) / 2 of the `interval` whose upper end just reaches the margin. NaN and 0.5 as in `tost`.
    """
    lead = differences.shape[:-1]
    if differences.shape[-1] < 2:
        return np.full(lead, np.nan)

    def at(p: Array, places: Array) -> Array:
        these = places.astype(int)
        return interval(flat[these], bases[these], 1 - 2 * p)[1] - margin

    flat, bases = (sample.reshape(-1, sample.shape[-1]) for sample in (differences, baseline))
    every = np.arange(len(flat), dtype=np.float64)
    least, most = (at(np.full(len(flat), p), every) for p in (_SMALLEST_P, 0.5))
    levels = np.where(np.isnan(least), np.nan, np.where(least <= 0, 0.0, 0.5))
    between = np.flatnonzero((least > 0) & (most < 0))
    if between.size:
        ends = np.full(between.size, _SMALLEST_P), np.full(between.size, 0.5)
        levels[between] = elementwise.find_root(at, ends, args=(every[between],)).x
    return levels.reshape(lead)
