"""Criteria on runs paired by seed: means, ratios, changes, differences, and whether a metric is worse."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from pmexp.metrics.catalog import metric_of
from pmexp.protocol import EQUIVALENCE, Bound, CriterionConfig, Statistic
from pmexp_analysis.criteria.result import LEVEL, Part, decide
from pmexp_analysis.numbers import scales, sigmas, stats
from pmexp_analysis.numbers.cells import counted, number
from pmexp_analysis.numbers.stats import Array
from pmexp_analysis.numbers.values import BySeed

_MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class Sides:
    """The values of the method and of the baseline in one task and system, of a metric that may be exact."""

    task: str
    system: str
    method: BySeed
    baseline: BySeed
    metric: str
    exact: bool


def judge_pairs(criterion: CriterionConfig, sides: Sides) -> Part:
    """Raises scales.Undefined where the statistic is not defined for these numbers."""
    ours, theirs = _paired(criterion, sides)
    if criterion.statistic is Statistic.p_worse:
        return _judge_p_worse(criterion, sides, ours - theirs)
    of_baseline = np.array(list(sides.baseline.values()))
    sigma = stats.describe(of_baseline).std
    sample = scales.sample(criterion.statistic, ours, theirs, sigma)
    mean, n = float(sample.mean()), sample.size
    value = scales.said(criterion.statistic, mean)
    about = Part(sides.task, sides.system, "inconclusive", "", value, n=n)
    what = "run" if criterion.statistic is Statistic.mean or criterion.against is not None else "pair"
    if sides.exact and n == 1:
        return _with(about, criterion, mean, mean, f"{_said(criterion, value)}, counted in one {what}")
    if not sides.exact and n < stats.FEWEST_PAIRS:
        why = f"{_said(criterion, value)} in {counted(n, what)}: at least {stats.FEWEST_PAIRS} are needed"
        return replace(about, why=why)
    in_sigmas = criterion.statistic is Statistic.difference_in_sigma
    if not (in_sigmas and sample.any()) and stats.is_constant(sample, float(np.abs(sample).max())):
        return _with(about, criterion, mean, mean, f"{_said(criterion, value)} in each of {counted(n, what)}")
    interval = (
        sigmas.interval(ours - theirs, of_baseline, LEVEL) if in_sigmas else stats.t_interval(sample, LEVEL)
    )
    assert interval
    low, high = interval
    ends = [_said(criterion, scales.said(criterion.statistic, end)) for end in interval]
    why = f"{_said(criterion, value)}, 90 % interval {ends[0]} to {ends[1]}, {counted(n, what)}"
    judged = _with(about, criterion, low, high, why)
    if judged.result == "inconclusive" and criterion.comparison is Bound.within:
        needed = _pairs_needed(
            float(sample.std(ddof=1)), scales.tested(criterion.statistic, criterion.threshold)
        )
        judged = replace(judged, why=f"{why}; without any difference about {needed} would be needed")
    if judged.result == "fail" and _is_better_side(criterion, sides, value):
        judged = replace(judged, why=f"{why}: outside on the better side")
    return judged


def _is_better_side(criterion: CriterionConfig, sides: Sides, value: float) -> bool:
    direction = metric_of(sides.metric).direction
    better = (value > 0) == (direction == "max") and direction != "none"
    return criterion.comparison is Bound.within and better and criterion.drop_from is None


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


def _with(part: Part, criterion: CriterionConfig, low: float, high: float, why: str) -> Part:
    """`part` judged by its interval, whose ends are given in the tested scale."""
    ends = [scales.said(criterion.statistic, end) for end in (low, high)]
    result = decide(ends[0], ends[1], criterion.comparison, criterion.threshold)
    return replace(part, result=result, why=why, low=ends[0], high=ends[1])


def _judge_p_worse(criterion: CriterionConfig, sides: Sides, differences: Array) -> Part:
    direction, n = metric_of(sides.metric).direction, differences.size
    if direction == "none":
        raise scales.Undefined(f"{sides.metric} has no worse end")
    worse = differences if direction == "min" else -differences
    p = stats.p_above(worse)
    if p is None or (not sides.exact and n < stats.FEWEST_PAIRS):
        why = f"{counted(n, 'pair')}: at least {stats.FEWEST_PAIRS} are needed"
        return Part(sides.task, sides.system, "inconclusive", why, p, n=n)
    result = decide(p, p, criterion.comparison, criterion.threshold)
    why = f"one-sided paired p {number(p, 3)}, mean difference {number(float(differences.mean()), 3)}"
    why += f" {metric_of(sides.metric).unit}, {counted(n, 'pair')}"
    return Part(sides.task, sides.system, result, why, p, n=n)


def _pairs_needed(std: float, margin: float) -> str:
    """Pairs with which equivalence would be found with a power of 0.8 if there is no difference, by t
    quantiles (Phillips, 1990), for differences of this standard deviation and a margin in the same scale."""
    low, high = 2, _MOST_SEEDS
    while high - low > 1:  # the first n that suffices lies in (low, high]
        n = (low + high) // 2
        reach = sum(special.stdtrit(n - 1, p) for p in (1 - stats.SIGNIFICANCE, (1 + stats.POWER) / 2))
        low, high = (low, n) if reach * std / n**0.5 <= margin else (n, high)
    return f"{high} seeds" if high < _MOST_SEEDS else "over a million seeds"


def _said(criterion: CriterionConfig, value: float) -> str:
    if value == 0 and criterion.statistic in EQUIVALENCE:
        return "no difference"
    if criterion.statistic is Statistic.relative_change:
        return f"{100 * value:+.2f} %"
    if criterion.statistic is Statistic.times_smaller:
        return f"{number(value)}x"
    return number(value) + " sigma" * (criterion.statistic is Statistic.difference_in_sigma)
