"""The table of comparisons and the criteria say the same of equivalence: both correct for the steps of scores."""

import numpy as np
import pytest

from pmexp.protocol import Bound, CriterionConfig, ProtocolConfig, Statistic
from pmexp_analysis.criteria.estimates import Sides
from pmexp_analysis.criteria.pairs import judge_pairs
from pmexp_analysis.numbers.compare import Comparison, comparisons
from pmexp_analysis.sources.values import MetricValues, SectionValues

SCORE, STEP = "test/accuracy", 1 / 20
STATISTICS = [Statistic.difference, Statistic.difference_in_sigma, Statistic.relative_change]
MARGINS = {
    Statistic.difference: 0.06,
    Statistic.difference_in_sigma: 2.0,
    Statistic.relative_change: 0.1,
}


def compared(ours: list[float], theirs: list[float], criterion: CriterionConfig) -> Comparison:
    values = MetricValues(
        "fraction", "max", {"baseline": dict(enumerate(theirs)), "pm-drop": dict(enumerate(ours))}
    )
    section = SectionValues("net/digits", "plain", {SCORE: values})
    (one,) = comparisons([section], ProtocolConfig(criteria={"quality": criterion}))
    return one


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_table_calls_equivalent_what_a_criterion_does(statistic: Statistic) -> None:
    """On 300 draws of coarse scores; without the correction they differ in a tenth of them."""
    margin = MARGINS[statistic]
    criterion = CriterionConfig(metric=SCORE, statistic=statistic, comparison=Bound.within, threshold=margin)
    random, seen = np.random.default_rng(0), set()
    for _ in range(300):
        ours, theirs = (STEP * np.rint(random.normal(0.9, 0.03, 4) / STEP) for _ in range(2))
        if not (ours - theirs).any():  # equal scores are said to be equal, and settle nothing more
            continue
        sides = Sides("t", "s", dict(enumerate(ours)), dict(enumerate(theirs)), SCORE, False)
        (part,) = judge_pairs(criterion, [sides])
        verdict = compared(ours.tolist(), theirs.tolist(), criterion).verdict
        assert (verdict == "equivalent") == (part.result == "pass"), (ours, theirs, part.why)
        seen.add(verdict)
    assert {"equivalent", "inconclusive"} <= seen


def test_scores_that_differ_by_one_step_in_every_pair_settle_nothing() -> None:
    criterion = CriterionConfig(
        metric=SCORE, statistic=Statistic.difference, comparison=Bound.within, threshold=0.2
    )
    one = compared([0.9, 0.85, 0.95], [0.85, 0.8, 0.9], criterion)
    assert (one.verdict, one.tost_p) == ("inconclusive", None)
    assert "discrete steps" in one.note
