"""What so many seeds can settle of each claim, by the spread of runs that are there: a sweep's plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pmexp.protocol import MARGINS, Bound, CriterionConfig, Statistic, is_about
from pmexp.shown import counted
from pmexp_analysis.criteria.estimates import Sides, limit_of
from pmexp_analysis.criteria.judge import as_judged, sides_of
from pmexp_analysis.criteria.pairs import in_its_unit
from pmexp_analysis.criteria.power import Spread, in_words, reach, seeds_needed, spread_for
from pmexp_analysis.numbers import scales, stats
from pmexp_analysis.numbers.evidence import evidence_of
from pmexp_analysis.numbers.stats import Array
from pmexp_analysis.sources.experiment import Experiment

SEEDS = (3, 5, 10, 20)
_NO_SEEDS = {
    Statistic.diverged: "judged by every run, not by a number of seeds",
    Statistic.growth_exponent: "settled by more settings, not by more seeds",
    Statistic.largest_ratio: "settled by trying values closer together, not by more seeds",
    Statistic.only_fits: "settled by trying values closer together, not by more seeds",
    Statistic.unchanged: "settled by proof: one run with the same dropout masks as the baseline",
    Statistic.own: "nothing is known of its spread; the report says it of the runs that are there",
    Statistic.p_worse: "a large p only shows a lack of evidence; no_worse with a margin can be planned",
}


@dataclass(frozen=True)
class Plan:
    """A claim in one task and system, and what so many seeds settle of it, in words.

    `cells` has one text a number of seeds of SEEDS; empty where `why` says that seeds settle nothing.
    """

    name: str
    task: str
    system: str
    why: str
    cells: list[str]


def plans(experiment: Experiment) -> list[Plan]:
    """Returns a Plan a criterion, task and system, in the protocol's order."""
    planned, sections, evidence = [], experiment.values, evidence_of(experiment)
    for name, criterion in experiment.protocol.criteria.items():
        if criterion.statistic in _NO_SEEDS:
            planned.append(Plan(name, "all", "all", _NO_SEEDS[criterion.statistic], []))
            continue
        for section in sections:
            if is_about(criterion, section.task):
                sides = sides_of(criterion, section, experiment, evidence)
                at = (name, section.task, section.system)
                if isinstance(sides, str):
                    planned.append(Plan(*at, sides, []))
                elif sides.exact:
                    planned.append(Plan(*at, "an exact count: one seed settles it", []))
                else:
                    planned.append(_plan(at, as_judged(criterion), sides))
    return planned


def _plan(at: tuple[str, str, str], criterion: CriterionConfig, sides: Sides) -> Plan:
    try:
        std, runs, source = _spread(criterion, sides)
    except scales.Undefined as error:
        return Plan(*at, str(error), [])
    if not std:
        return Plan(*at, f"{source} do not vary, so there is nothing to plan by", [])
    spread, why = spread_for(criterion, std, runs - 1), f"from the spread of {source}"
    comparison, threshold = limit_of(criterion, sides.metric)
    if criterion.comparison in MARGINS:
        distance = abs(scales.tested(criterion.statistic, threshold))
        needed = seeds_needed(spread, distance, comparison is Bound.within)
        why += f"; {in_words(needed)} pass it if there is no true difference"
    return Plan(*at, why, [_settled(criterion, comparison, threshold, n, spread) for n in SEEDS])


def _settled(criterion: CriterionConfig, comparison: Bound, threshold: float, n: int, spread: Spread) -> str:
    """The true values at which `n` seeds pass the claim, and fail it, with a power of 0.8."""
    limit = scales.tested(criterion.statistic, threshold)
    away = reach(n, spread, comparison is Bound.within)

    def said(tested: float) -> str:
        return in_its_unit(criterion, scales.said(criterion.statistic, tested))

    if comparison is Bound.within:
        inside = f"if the true difference is within ±{said(limit - away)}" if away < limit else "never"
        return f"passes {inside}, fails if it is beyond ±{said(limit + away)}"
    better, worse = ("from", "up to") if comparison is Bound.at_least else ("up to", "from")
    sign = 1 if comparison is Bound.at_least else -1
    return f"passes {better} {said(limit + sign * away)}, fails {worse} {said(limit - sign * away)}"


def _spread(criterion: CriterionConfig, sides: Sides) -> tuple[float, int, str]:
    """(standard deviation of a pair in the tested scale, from how many numbers it is, and in words).

    Without two pairs it is that of the baseline's runs, as if the two of a pair had nothing in common.
    """
    shared = sorted(sides.method.keys() & sides.baseline.keys())
    alone = criterion.statistic is Statistic.mean or criterion.against is not None
    if alone and len(sides.method) > 1:
        values = np.array(list(sides.method.values()))
        against = np.full_like(values, criterion.against or 0.0)
        said = f"{counted(len(values), 'run')} of the method"
        return _std(criterion, values, against, values), len(values), said
    base = np.array(list(sides.baseline.values()))
    if not alone and len(shared) > 1:
        ours, theirs = (np.array([side[seed] for seed in shared]) for side in (sides.method, sides.baseline))
        return _std(criterion, ours, theirs, base), len(shared), counted(len(shared), "pair")
    if len(base) > 1:
        around = np.full_like(base, base.mean())
        both = 1.0 if alone else 2**0.5
        said = f"{counted(len(base), 'run')} of the baseline"
        return both * _std(criterion, base, around, base), len(base), said
    raise scales.Undefined("at least two runs of the baseline are needed to plan by")


def _std(criterion: CriterionConfig, ours: Array, theirs: Array, baseline: Array) -> float:
    sample = scales.sample(criterion.statistic, ours, theirs, float(stats.spread(baseline)))
    return float(stats.spread(sample))


def as_text(planned: Sequence[Plan]) -> str:
    """The plan for a terminal: a claim a paragraph, a number of seeds a line."""
    blocks = [
        "What a number of seeds can settle, in 4 of 5 new sweeps (a power of 0.8); that the spread is known "
        "from few runs is counted in:"
    ]
    for one in planned:
        where = "" if one.task == "all" else f" ({one.task}, {one.system})"
        lines = [f"{one.name}{where}: {one.why}"]
        lines += [f"  {n:>3} seeds: {cell}" for n, cell in zip(SEEDS, one.cells, strict=False)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
