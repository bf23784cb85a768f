"""Measures two things in alternation and says which is faster."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PairedRatio:
    """Says how many times as fast a contender is, with the 95 % interval; above 1 is faster than the
    baseline."""

    ratio: float
    low: float
    high: float


def paired_ratio(baseline: Sequence[float], contender: Sequence[float]) -> PairedRatio:
    """Returns the median of baseline[i] / contender[i] and its 95 % interval.

    The two times of a pair were taken one after the other, so whatever slowed the machine down for a
    while slowed both, and their ratio does not show it.

    Raises ValueError where the times do not pair up.
    """
    if len(baseline) != len(contender) or not baseline:
        raise ValueError(f"paired ratio: {len(baseline)} times against {len(contender)} are no pairs")
    return PairedRatio(*median_interval([a / b for a, b in zip(baseline, contender, strict=True)]))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median of the values and where its 95 % interval begins and ends, [x(k), x(n + 1 - k)] of
    the sorted x.

    The interval supposes nothing about how values are distributed: k is the largest rank with
    P(Binomial(n, 1/2) < k) <= 2.5 % (Conover, Practical Nonparametric Statistics). Fewer than 6 values have
    no such k: then it is their whole range.
    """
    ordered = sorted(values)
    outside = max(_rank(len(ordered)), 1) - 1  # at either end
    return statistics.median(ordered), ordered[outside], ordered[-1 - outside]


def _rank(n: int) -> int:
    k, below = 0, 0.0  # P(Binomial(n, 1/2) < k)
    while (below := below + math.comb(n, k) / 2**n) <= 0.025:
        k += 1
    return k


def alternate(
    contender: Callable[[], float], baseline: Callable[[], float], pairs: int
) -> tuple[list[float], list[float]]:
    """Returns the seconds that `pairs` calls of each report. The one that goes first goes second in the next
    pair, so that a machine that grows slower or faster favours neither."""
    seconds: tuple[list[float], list[float]] = ([], [])
    both = (contender, baseline)
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            seconds[which].append(both[which]())
    return seconds
