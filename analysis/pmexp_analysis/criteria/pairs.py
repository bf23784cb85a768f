"""Criteria on runs paired by seed: means, ratios, changes, differences, and whether a metric is worse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pmexp.metrics.catalog import metric_of
from pmexp.protocol import EQUIVALENCE, MARGINS, Bound, CriterionConfig, Statistic
from pmexp_analysis.criteria.power import in_words, seeds_needed
from pmexp_analysis.criteria.result import LEVEL, TaskResult, decide
from pmexp_analysis.numbers import scales, sigmas, stats
from pmexp_analysis.numbers.cells import counted, number, probability
from pmexp_analysis.numbers.scores import is_score
from pmexp_analysis.numbers.stats import Array
from pmexp_analysis.numbers.values import BySeed

_RATIOS = (Statistic.relative_change, Statistic.times_smaller)
_ROUNDING = 1e-12  # of scores, which are fractions


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


def judge_pairs(criterion: CriterionConfig, sides: Sides) -> TaskResult:
    """Judges one task and system. Raises scales.Undefined where its numbers have no such statistic."""
    ours, theirs = _paired(criterion, sides)
    if criterion.statistic is Statistic.p_worse:
        return _judge_p_worse(criterion, sides, ours - theirs)
    of_baseline = np.array(list(sides.baseline.values()))
    sample = scales.sample(criterion.statistic, ours, theirs, float(stats.spread(of_baseline)))
    mean, n = float(sample.mean()), sample.size
    value = scales.said(criterion.statistic, mean)
    about = TaskResult(sides.task, sides.system, "inconclusive", "", value, n=n)
    what = "run" if criterion.statistic is Statistic.mean or criterion.against is not None else "pair"
    shown = in_its_unit(criterion, value)
    if sides.exact and n == 1:
        return _with(about, criterion, sides, (mean, mean), f"{shown}, counted in one {what}")
    if not sides.exact and n < stats.FEWEST_PAIRS:
        why = f"{shown} in {counted(n, what)}: at least {stats.FEWEST_PAIRS} are needed"
        return replace(about, why=why, seeds_needed=stats.FEWEST_PAIRS)
    if stats.is_constant(sample, np.abs(sample).max()):
        why = f"{shown} in each of {counted(n, what)}"
        if is_score(sides.metric) and not sides.exact and not sides.one_training:
            return replace(about, why=f"{why}: scores are multiples of a step, and equal ones show no spread")
        return _with(about, criterion, sides, (mean, mean), why)
    interval = _interval(criterion, sides, ours, theirs, of_baseline)
    ends = [in_its_unit(criterion, scales.said(criterion.statistic, end)) for end in interval]
    why = f"{shown}, 90 % interval {ends[0]} to {ends[1]}"
    if criterion.comparison is Bound.no_worse:
        p = _p_of_margin(criterion, sides, ours, theirs, of_baseline)
        why += f", p {probability(p)} of being worse by the margin"
    judged = _with(about, criterion, sides, interval, f"{why}, {counted(n, what)}")
    return _with_seeds_needed(judged, criterion, sides, sample)


def _paired(criterion: CriterionConfig, sides: Sides) -> tuple[Array, Array]:
    """Method and reference over the seeds that count, shape (n,) each. Raises Undefined without any."""
    if criterion.statistic is Statistic.mean or criterion.against is not None:
        ours = np.array([sides.method[seed] for seed in sorted(sides.method)])
        theirs = np.full_like(ours, criterion.against or 0.0)
    else:
        seeds = sorted(sides.method.keys() & sides.baseline.keys())
        ours = np.array([sides.method[seed] for seed in seeds])
        theirs = np.array([sides.baseline[seed] for seed in seeds])
    if not ours.size:
        lacking = "the baseline" if sides.method and not sides.baseline else "the method"
        no_pair = "method and baseline share no seed"
        both = sides.method and sides.baseline
        raise scales.Undefined(no_pair if both else f"no finite {sides.metric} of {lacking}")
    return ours, theirs


def limit_of(criterion: CriterionConfig, metric: str) -> tuple[Bound, float]:
    """Returns what `no_worse` means: at least -threshold where more of `metric` is better, else at most."""
    if criterion.comparison is not Bound.no_worse:
        return criterion.comparison, criterion.threshold
    more_is_better = (metric_of(metric).direction == "max") == (criterion.drop_from is None)
    if more_is_better:
        return Bound.at_least, -criterion.threshold
    return Bound.at_most, criterion.threshold


def _with(
    about: TaskResult, criterion: CriterionConfig, sides: Sides, interval: tuple[float, float], why: str
) -> TaskResult:
    """`about`, judged by its interval, whose ends are given in the tested scale."""
    low, high = (scales.said(criterion.statistic, end) for end in interval)
    comparison, threshold = limit_of(criterion, sides.metric)
    result = decide(low, high, comparison, threshold)
    if criterion.comparison is Bound.no_worse:
        why += f"; {_also_within(criterion, low, high)}"
    return replace(about, result=result, why=why, low=low, high=high)


def _also_within(criterion: CriterionConfig, low: float, high: float) -> str:
    within = decide(low, high, Bound.within, criterion.threshold)
    said = in_its_unit(criterion, criterion.threshold).lstrip("+")
    return {
        "pass": f"within {said} on both sides",
        "fail": f"not within {said}",
    }.get(within, f"within {said} on both sides is not shown")


def _interval(
    criterion: CriterionConfig, sides: Sides, ours: Array, theirs: Array, baseline: Array
) -> tuple[float, float]:
    """The 90 % interval in the tested scale, of scores with the continuity correction at either end."""
    correction, sigma = _correction(sides, ours.size), float(stats.spread(baseline))
    found = []
    for end, shift in ((0, -correction), (1, correction)):
        if criterion.statistic is Statistic.difference_in_sigma:
            interval = sigmas.interval(ours + shift - theirs, baseline, LEVEL)
        else:
            sample = scales.sample(criterion.statistic, ours, theirs, sigma)
            shifted = sample + shift if criterion.statistic not in _RATIOS else sample
            interval = stats.t_interval(shifted, LEVEL)
        found.append(float(interval[end]))
    return found[0], found[1]


def _correction(sides: Sides, n: int) -> float:
    """Half a step of the mean of `n` scores; zero for other metrics.

    Scores are multiples of a step, of which the smallest gap between two of them is an estimate. A t interval
    of coarse ones is too short: without this up to 7 % pass wrongly where 5 % may.
    """
    if not is_score(sides.metric) or sides.exact:
        return 0.0
    gaps = np.diff(np.unique([*sides.method.values(), *sides.baseline.values()]))
    gaps = gaps[gaps > _ROUNDING]
    return float(gaps.min()) / (2 * n) if gaps.size else 0.0


def _p_of_margin(
    criterion: CriterionConfig, sides: Sides, ours: Array, theirs: Array, baseline: Array
) -> float:
    """One-sided p that the method is worse by the margin or more, with the correction of `_interval`."""
    comparison, threshold = limit_of(criterion, sides.metric)
    side = 1 if comparison is Bound.at_most else -1
    shift = side * _correction(sides, ours.size)
    if criterion.statistic is Statistic.difference_in_sigma:
        return float(sigmas.p_beyond(side * (ours + shift - theirs), baseline, criterion.threshold))
    sample = scales.sample(criterion.statistic, ours, theirs, np.nan)
    sample = sample + shift if criterion.statistic not in _RATIOS else sample
    return float(stats.p_above(side * (scales.tested(criterion.statistic, threshold) - sample)))


def _with_seeds_needed(
    judged: TaskResult, criterion: CriterionConfig, sides: Sides, sample: Array
) -> TaskResult:
    """Adds how many seeds settle an open claim: of a margin if there is no difference, as a plan would take
    it, else if the difference is what it looks like."""
    if judged.result != "inconclusive":
        return judged
    std, mean = float(sample.std(ddof=1)), float(sample.mean())
    comparison, threshold = limit_of(criterion, sides.metric)
    both = comparison is Bound.within
    ends = (-threshold, threshold) if both else (threshold,)
    limits = [scales.tested(criterion.statistic, end) for end in ends]
    nearest = min(abs(limit) for limit in limits)
    if criterion.comparison in MARGINS:
        needed = seeds_needed(std, nearest, both)
        if needed is None or needed > judged.n:
            why = f"{judged.why}; without any difference {in_words(needed)} would be needed"
            return replace(judged, why=why, seeds_needed=needed)
    needed = seeds_needed(std, min(abs(mean - limit) for limit in limits if math.isfinite(limit)), both)
    why = f"{judged.why}; {in_words(needed)} would settle it if the difference is the one seen"
    return replace(judged, why=why, seeds_needed=needed)


def _judge_p_worse(criterion: CriterionConfig, sides: Sides, differences: Array) -> TaskResult:
    direction, n = metric_of(sides.metric).direction, differences.size
    if direction == "none":
        raise scales.Undefined(f"{sides.metric} has no worse end")
    worse = differences if direction == "min" else -differences
    p = float(stats.p_above(worse)) if n > 1 else None
    if p is None or (not sides.exact and n < stats.FEWEST_PAIRS):
        why = f"{counted(n, 'pair')}: at least {stats.FEWEST_PAIRS} are needed"
        needed = stats.FEWEST_PAIRS
        return TaskResult(sides.task, sides.system, "inconclusive", why, p, n=n, seeds_needed=needed)
    result = decide(p, p, criterion.comparison, criterion.threshold)
    why = f"one-sided paired p {number(p, 3)}, mean difference {number(float(differences.mean()), 3)}"
    why += f" {metric_of(sides.metric).unit}, {counted(n, 'pair')}"
    return TaskResult(sides.task, sides.system, result, why, p, n=n)


def in_its_unit(criterion: CriterionConfig, value: float) -> str:
    """`value` of the criterion's statistic, as a sentence has it."""
    if value == 0 and criterion.statistic in EQUIVALENCE:
        return "no difference"
    if criterion.statistic is Statistic.relative_change:
        return f"{100 * value:+.2f} %"
    if criterion.statistic is Statistic.times_smaller:
        return f"{number(value)}x"
    return number(value) + " sigma" * (criterion.statistic is Statistic.difference_in_sigma)
