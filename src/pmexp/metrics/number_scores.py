"""Scores the numbers of a regression, each function of (samples,) numbers said and true.

Correlations are SciPy's, which is imported where one is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.floating[Any]]


def pearson(said: "Numbers", true: "Numbers") -> float:
    """The linear correlation, -1 to 1; 0 where either are all one number, which tells nothing apart."""
    from scipy.stats import pearsonr

    return float(pearsonr(*_wide(said, true)).statistic) if _differ(said, true) else 0.0


def spearman(said: "Numbers", true: "Numbers") -> float:
    """The correlation of ranks, -1 to 1; 0 where either are all one number, which ranks nothing."""
    from scipy.stats import spearmanr

    return float(spearmanr(*_wide(said, true)).statistic) if _differ(said, true) else 0.0


def mean_squared_error(said: "Numbers", true: "Numbers") -> float:
    """Returns the mean of (said - true)^2 over the samples, in float64."""
    said, true = _wide(said, true)
    return float(((said - true) ** 2).mean())


def mean_absolute_error(said: "Numbers", true: "Numbers") -> float:
    """Returns the mean of |said - true| over the samples, in float64."""
    said, true = _wide(said, true)
    return float(abs(said - true).mean())


def variance(true: "Numbers") -> float:
    """The squared error of always saying the mean, which no constant has a smaller one than."""
    return float(true.astype("float64").var())


def deviation_from_median(true: "Numbers") -> float:
    """The absolute error of always saying the median, which no constant has a smaller one than."""
    import numpy as np

    return float(np.abs(true - np.median(true)).mean())


def _wide(*numbers: "Numbers") -> "tuple[Numbers, ...]":
    return tuple(each.astype("float64") for each in numbers)


def _differ(*numbers: "Numbers") -> bool:
    """Whether there are two different finite numbers or more in each; a NaN goes through to the score."""
    return all(len(each) > 1 and not (each == each[0]).all() for each in numbers)
