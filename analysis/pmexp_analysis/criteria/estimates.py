"""The numbers that criteria on pairs are judged by, of many tasks at once: one size is one array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pmexp.metrics.catalog import metric_of
from pmexp.protocol import Bound, CriterionConfig, Statistic
from pmexp_analysis.criteria.result import LEVEL
from pmexp_analysis.numbers import own_statistics, scales, sigmas, stats
from pmexp_analysis.numbers.paired import alike
from pmexp_analysis.numbers.scores import is_score
from pmexp_analysis.numbers.stats import Array
from pmexp_analysis.sources.values import BySeed

_FOR_SIGMA = 2  # seeds


@dataclass(frozen=True)
class Sides:
    """The values of the method and of the baseline in one task and system, of a metric that may be exact.

    `one_training`: the runs of each pair are one training, so that equal values are no chance. `apart`: seeds
    of the method that are left out.
    """

    task: str
    system: str
    method: BySeed
    baseline: BySeed
    metric: str
    exact: bool
    one_training: bool = False
    apart: Sequence[int] = ()


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation and 90 % interval of the tested numbers (see scales.py) of `n` runs or pairs.

    `p`: one-sided, of being worse, by the margin where there is one. NaN is what so few do not define.
    """

    n: int
    mean: float
    std: float
    is_constant: bool
    low: float
    high: float
    p: float


def estimates(criterion: CriterionConfig, every: Sequence[Sides]) -> list[Estimate | str]:
    """The Estimate of each of the sides, or in words why there is none."""
    estimates_of: list[Estimate | str] = ["" for _ in every]
    known = []
    for place, sides in enumerate(every):
        if lacking := _lacking(criterion, sides):
            estimates_of[place] = lacking
        else:
            known.append((place, (_paired(criterion, sides), sides.metric)))
    pairs = {place: at for place, (at, _) in known}
    keyed = ((place, (len(at[0]), len(every[place].baseline), metric)) for place, (at, metric) in known)
    for places in alike(keyed):
        ours, theirs = (np.array([pairs[place][side] for place in places]) for side in (0, 1))
        for place, one in zip(
            places, _of_size(criterion, [every[p] for p in places], ours, theirs), strict=True
        ):
            estimates_of[place] = one
    return estimates_of


def _of_size(
    criterion: CriterionConfig, every: Sequence[Sides], ours: Array, theirs: Array
) -> list[Estimate | str]:
    """The estimates of sides of one metric and one size; `ours` and `theirs` have shape (sides, n)."""
    baseline = np.array([list(sides.baseline.values()) for sides in every])
    if criterion.statistic is Statistic.p_worse:
        sign = 1 if metric_of(every[0].metric).direction == "min" else -1
        samples = ours - theirs
        low = high = np.full(len(every), np.nan)
        p = stats.p_above(sign * samples)
    else:
        samples = _samples(criterion, ours, theirs, baseline)
        correction = np.array([_correction(criterion, sides, ours.shape[-1]) for sides in every])[:, None]
        low, high = _interval(criterion, samples, ours, theirs, baseline, correction)
        p = _p_of_margin(criterion, every[0].metric, ours, theirs, baseline, correction)
    is_constant = stats.is_constant(samples, np.abs(samples).max(axis=-1))
    if is_score(every[0].metric):  # the rounding of the scores is more than that of their difference
        is_constant = is_constant | stats.constant_difference(ours, theirs)
    columns = {
        "mean": samples.mean(axis=-1),
        "std": stats.spread(samples),
        "is_constant": is_constant,
        "low": low,
        "high": high,
        "p": p,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    made = [Estimate(ours.shape[-1], **dict(zip(columns, row, strict=True))) for row in rows]
    why = scales.undefined(criterion.statistic)
    if criterion.statistic is Statistic.difference_in_sigma and baseline.shape[-1] < _FOR_SIGMA:
        why = f"the baseline has one seed, and its standard deviation needs at least {_FOR_SIGMA}"
    is_defined: list[bool] = [not row.any() for row in np.isnan(samples)]
    return [one if defined else why for defined, one in zip(is_defined, made, strict=True)]


def _samples(criterion: CriterionConfig, ours: Array, theirs: Array, baseline: Array) -> Array:
    if criterion.function is not None:
        return own_statistics.samples(criterion.function, ours, theirs)
    return scales.samples(criterion.statistic, ours, theirs, stats.spread(baseline))


def _lacking(criterion: CriterionConfig, sides: Sides) -> str:
    """Why there is nothing to test; empty where there is something."""
    if criterion.function is not None and (refused := own_statistics.refusal(criterion.function)):
        return refused
    if criterion.statistic is Statistic.p_worse and metric_of(sides.metric).direction == "none":
        return f"{sides.metric} has no better or worse direction"
    if is_alone(criterion):
        is_there = bool(sides.method)
    else:
        is_there = not sides.method.keys().isdisjoint(sides.baseline)
    if is_there:
        return ""
    if sides.method and sides.baseline:
        return "no seed has finished runs of both method and baseline"
    return f"no run of {'the baseline' if sides.method else 'the method'} recorded a finite {sides.metric}"


def is_alone(criterion: CriterionConfig) -> bool:
    """Whether the method's runs are judged without a pair."""
    return criterion.statistic is Statistic.mean or criterion.against is not None


def _paired(criterion: CriterionConfig, sides: Sides) -> tuple[list[float], list[float]]:
    """Method and reference over the seeds that count."""
    if is_alone(criterion):
        ours = [sides.method[seed] for seed in sorted(sides.method)]
        return ours, [criterion.against or 0.0] * len(ours)
    seeds = sorted(sides.method.keys() & sides.baseline.keys())
    return [sides.method[seed] for seed in seeds], [sides.baseline[seed] for seed in seeds]


def limit_of(criterion: CriterionConfig, metric: str) -> tuple[Bound, float]:
    """Returns what `no_worse` means: at least -threshold where more of `metric` is better, else at most."""
    if criterion.comparison is not Bound.no_worse:
        return criterion.comparison, criterion.threshold
    more_is_better = (metric_of(metric).direction == "max") == (criterion.drop_from is None)
    if more_is_better:
        return Bound.at_least, -criterion.threshold
    return Bound.at_most, criterion.threshold


def _correction(criterion: CriterionConfig, sides: Sides, n: int) -> float:
    """Half a step of the mean of `n` scores; zero for other metrics, and for what a function makes of it."""
    if not is_score(sides.metric) or sides.exact or criterion.function is not None:
        return 0.0
    return stats.half_step(np.array([*sides.method.values(), *sides.baseline.values()]), n)


def _interval(
    criterion: CriterionConfig,
    samples: Array,
    ours: Array,
    theirs: Array,
    baseline: Array,
    correction: Array,
) -> tuple[Array, Array]:
    """The 90 % intervals in the tested scale, with scores taken to lie further out at each end by their
    continuity `correction` (shape (sides, 1))."""
    if criterion.statistic is Statistic.difference_in_sigma:
        sides = (sigmas.interval(ours + out - theirs, baseline, LEVEL) for out in (-correction, correction))
    elif not correction.any():
        return stats.t_interval(samples, LEVEL)
    else:
        up = -correction if criterion.statistic is Statistic.times_smaller else correction
        each = (_samples(criterion, ours + out, theirs, baseline) for out in (-up, up))
        sides = (stats.t_interval(shifted, LEVEL) for shifted in each)
    (low, _), (_, high) = sides
    return low, high


def _p_of_margin(
    criterion: CriterionConfig, metric: str, ours: Array, theirs: Array, baseline: Array, correction: Array
) -> Array:
    """One-sided p that the method is worse by the margin or more, with the correction of the interval."""
    if criterion.comparison is not Bound.no_worse:
        return np.full(len(ours), np.nan)
    comparison, threshold = limit_of(criterion, metric)
    side = 1 if comparison is Bound.at_most else -1
    shifted = ours + side * correction
    if criterion.statistic is Statistic.difference_in_sigma:
        return sigmas.p_beyond(side * (shifted - theirs), baseline, criterion.threshold)
    samples = _samples(criterion, shifted, theirs, baseline)
    return stats.p_above(side * (scales.tested(criterion.statistic, threshold) - samples))
