"""Criteria pass wrongly in at most 5 % of experiments, and no small experiment breaks the report."""

import numpy as np
import pytest
from false_passes import (
    SCORE,
    SEEDS,
    STEP_TIME,
    Case,
    cases,
    drawn,
    false_passes,
    judged_once,
    other_comparisons,
    shipped,
)
from scipy import stats as scipy_stats

from pmexp.metrics.catalog import metric_of
from pmexp.protocol import CriterionConfig, Statistic
from pmexp_analysis.criteria.estimates import Sides
from pmexp_analysis.criteria.judge import as_judged
from pmexp_analysis.criteria.pairs import judge_pairs

CRITERIA = shipped()
NAMES = sorted({case.name for case in cases()})
TRIALS = 60  # a case; those of one criterion and number of seeds are counted together
EXPERIMENTS = 200


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_no_more_than_five_percent_pass_wrongly_at_the_threshold(name: str, n: int) -> None:
    mine = [case for case in cases() if (case.name, case.n) == (name, n)]
    passed = sum(false_passes(case, CRITERIA[name], TRIALS, place) for place, case in enumerate(mine))
    assert passed <= scipy_stats.binom.ppf(0.999, TRIALS * len(mine), 0.05)


@pytest.mark.parametrize("n", SEEDS)
def test_scores_that_agree_by_chance_pass_nothing(n: int) -> None:
    case = Case("robust-bit-flips", n, step=0.1, spread=0.01)
    ours, theirs = drawn(case, CRITERIA[case.name], 200, seed=1)
    assert (ours == theirs).all(axis=1).mean() > 0.05  # which passed, one and all, as having no spread
    assert false_passes(case, CRITERIA[case.name], 200, seed=1) <= scipy_stats.binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize("name", NAMES)
def test_no_shipped_criterion_fails_for_being_better(name: str) -> None:
    criterion = CRITERIA[name]
    metric = SCORE if (criterion.metric or "").endswith("score") else criterion.metric or STEP_TIME
    base = {seed: 0.5 + seed / 100 for seed in range(5)}
    if criterion.statistic is Statistic.mean:
        base = {seed: value * criterion.threshold for seed, value in base.items()}
    better_is_more = (metric_of(metric).direction == "max") == (criterion.drop_from is None)
    better = {s: value * (1.9 if better_is_more else 0.05) + s / 1e6 for s, value in base.items()}
    (part,) = judge_pairs(as_judged(criterion), [Sides("t", "s", better, base, metric, False)])
    assert part.result == "pass", part.why


def test_no_small_experiment_breaks_the_report() -> None:
    criteria: dict[str, CriterionConfig] = other_comparisons(CRITERIA)
    results = {
        judged_once(np.random.default_rng((2, place)), criteria, pages=place % 10 == 0)
        for place in range(EXPERIMENTS)
    }
    assert {"fail", "inconclusive"} <= results
