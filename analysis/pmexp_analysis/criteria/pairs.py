"""Criteria on runs paired by seed: means, ratios, changes, differences, and whether a metric is worse."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pmexp.metrics.catalog import metric_of
from pmexp.protocol import EQUIVALENCE, MARGINS, Bound, CriterionConfig, Statistic
from pmexp.shown import counted
from pmexp_analysis.criteria.estimates import Estimate, Sides, estimates, is_alone, limit_of
from pmexp_analysis.criteria.power import in_words, seeds_needed, spread_for
from pmexp_analysis.criteria.result import TaskResult, decide, room_of
from pmexp_analysis.numbers import own_statistics, scales, stats
from pmexp_analysis.numbers.cells import margin_probability, number
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.numbers.scores import is_score


def judge_pairs(criterion: CriterionConfig, every: Sequence[Sides]) -> list[TaskResult]:
    """Judges every task and system; one whose numbers have no such statistic is not measured."""
    judged = _judge_p_worse if criterion.statistic is Statistic.p_worse else _judge
    return [
        TaskResult(sides.task, sides.system, "not measured", estimate)
        if isinstance(estimate, str)
        else judged(criterion, sides, estimate)
        for sides, estimate in zip(every, estimates(criterion, every), strict=True)
    ]


def _judge(criterion: CriterionConfig, sides: Sides, estimate: Estimate) -> TaskResult:
    mean, n = estimate.mean, estimate.n
    value = scales.said(criterion.statistic, mean)
    about = TaskResult(sides.task, sides.system, "inconclusive", "", value, n=n)
    what = "run" if is_alone(criterion) else "pair"
    shown = in_its_unit(criterion, value)
    if criterion.function is not None:
        shown += f" by {own_statistics.identity(criterion.function)}"
    if sides.exact and n == 1:
        return _with(about, criterion, sides, (mean, mean), f"{shown}, an exact count in one {what}")
    if not sides.exact and n < stats.FEWEST_PAIRS:
        why = f"{shown} in {counted(n, what)}, but at least {stats.FEWEST_PAIRS} are needed"
        return replace(about, why=why, seeds_needed=stats.FEWEST_PAIRS)
    if estimate.is_constant:
        why = f"{shown} in each of {counted(n, what)}"
        if is_score(sides.metric) and not sides.exact and not sides.one_training:
            return replace(
                about,
                why=f"{why}: scores come in discrete steps, so equal differences do not show how "
                "much runs vary",
            )
        return _with(about, criterion, sides, (mean, mean), why)
    interval = estimate.low, estimate.high
    ends = [in_its_unit(criterion, scales.said(criterion.statistic, end)) for end in interval]
    why = f"{shown}, 90 % interval {ends[0]} to {ends[1]}"
    if criterion.comparison is Bound.no_worse:
        why += f", p {margin_probability(estimate.p)} for being worse than the margin allows"
    judged = _with(about, criterion, sides, interval, f"{why}, {counted(n, what)}")
    is_count = sides.exact and is_alone(criterion)
    if is_count and judged.result == "pass" and (said := _misses(criterion, sides)):
        return replace(judged, result="inconclusive", why=f"{judged.why}; but {said}")
    return _with_seeds_needed(judged, criterion, sides, estimate)


def _misses(criterion: CriterionConfig, sides: Sides) -> str:
    """Says which runs miss the claim by themselves: a count has no noise that a mean would take out."""
    seeds = sorted(sides.method)
    ours = np.array([sides.method[seed] for seed in seeds])
    against = np.full_like(ours, criterion.against or 0.0)
    sigma = stats.spread(np.array(list(sides.baseline.values())))
    samples = scales.samples(criterion.statistic, ours, against, sigma).tolist()
    values = [scales.said(criterion.statistic, sample) for sample in samples]
    at = limit_of(criterion, sides.metric)
    missed = {s: v for s, v in zip(seeds, values, strict=True) if decide(v, v, *at) != "pass"}
    if not missed:
        return ""
    first = in_its_unit(criterion, next(iter(missed.values())))
    misses = "misses" if len(missed) == 1 else "miss"
    return f"{seeds_said(list(missed))} alone {misses} it (the first: {first})"


def _with(
    about: TaskResult, criterion: CriterionConfig, sides: Sides, interval: tuple[float, float], why: str
) -> TaskResult:
    """`about`, judged by its interval, whose ends are given in the tested scale."""
    low, high = (scales.said(criterion.statistic, end) for end in interval)
    comparison, threshold = limit_of(criterion, sides.metric)
    result = decide(low, high, comparison, threshold)
    if criterion.comparison is Bound.no_worse:
        why += f"; {_also_within(criterion, low, high)}"
    room = room_of(low, high, comparison, threshold)
    return replace(about, result=result, why=why, low=low, high=high, room=room)


def _also_within(criterion: CriterionConfig, low: float, high: float) -> str:
    within = decide(low, high, Bound.within, criterion.threshold)
    said = in_its_unit(criterion, criterion.threshold).lstrip("+")
    return {
        "pass": f"also equivalent within ±{said}",
        "fail": f"not equivalent within ±{said}",
    }.get(within, f"equivalence within ±{said} is not shown")


def _with_seeds_needed(
    judged: TaskResult, criterion: CriterionConfig, sides: Sides, estimate: Estimate
) -> TaskResult:
    """Adds how many seeds of a new sweep settle an open claim: of a margin if there is no difference, as a
    plan would take it, else if the value is what it looks like."""
    if judged.result != "inconclusive":
        return judged
    spread, mean = spread_for(criterion, estimate.std, estimate.n - 1), estimate.mean
    what = "run" if is_alone(criterion) else "pair"
    assumed = f"(power {stats.POWER:g}, the spread known from {counted(estimate.n, what)} alone)"
    comparison, threshold = limit_of(criterion, sides.metric)
    both = comparison is Bound.within
    ends = (-threshold, threshold) if both else (threshold,)
    limits = [scales.tested(criterion.statistic, end) for end in ends]
    nearest = min(abs(limit) for limit in limits)
    if criterion.comparison in MARGINS:
        needed = seeds_needed(spread, nearest, both)
        if needed > judged.n:
            why = f"{judged.why}; if there is no true difference, {in_words(needed)} would show it {assumed}"
            return replace(judged, why=why, seeds_needed=needed)
    needed = seeds_needed(spread, min(abs(mean - limit) for limit in limits if math.isfinite(limit)), both)
    if needed <= judged.n:  # the step of the scores is too coarse in so few
        return judged
    why = f"{judged.why}; {in_words(needed)} would settle it if the true value is the observed one {assumed}"
    return replace(judged, why=why, seeds_needed=needed)


def _judge_p_worse(criterion: CriterionConfig, sides: Sides, estimate: Estimate) -> TaskResult:
    p, n = estimate.p, estimate.n
    if n < 2 or (not sides.exact and n < stats.FEWEST_PAIRS):
        why = f"only {counted(n, 'pair')}, but at least {stats.FEWEST_PAIRS} are needed"
        value, needed = (p if n > 1 else None), stats.FEWEST_PAIRS
        return TaskResult(sides.task, sides.system, "inconclusive", why, value, n=n, seeds_needed=needed)
    result = decide(p, p, criterion.comparison, criterion.threshold)
    why = f"one-sided paired p {number(p, 3)}, mean difference {number(estimate.mean, 3)}"
    why += f" {metric_of(sides.metric).unit}, {counted(n, 'pair')}"
    if criterion.comparison is Bound.at_least and result == "pass" and p < 1 - stats.SIGNIFICANCE:
        result = "inconclusive"
        why += (
            f"; a large p only shows a lack of evidence, and passes from {1 - stats.SIGNIFICANCE:g} on, "
            "where the method is shown to be better; no_worse with a margin is a claim that can be shown"
        )
    room = room_of(p, p, criterion.comparison, criterion.threshold)
    return TaskResult(sides.task, sides.system, result, why, p, n=n, room=room)


def in_its_unit(criterion: CriterionConfig, value: float) -> str:
    """`value` of the criterion's statistic, as a sentence has it."""
    if value == 0 and criterion.statistic in EQUIVALENCE:
        return "no difference"
    if criterion.statistic is Statistic.relative_change:
        return f"{100 * value:+.2f} %"
    if criterion.statistic is Statistic.times_smaller:
        return f"{number(value)}x"
    return number(value) + " sigma" * (criterion.statistic is Statistic.difference_in_sigma)
