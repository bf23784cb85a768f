"""Each statistic against a second, independent way to it."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pmexp_analysis.numbers import stats

RANDOM = np.random.default_rng(7)
OURS = RANDOM.normal(0.95, 0.01, 5)
THEIRS = RANDOM.normal(0.94, 0.03, 5)


def test_describe_agrees_with_the_standard_library() -> None:
    sample = stats.describe(OURS)
    assert sample.n == 5
    assert sample.mean == pytest.approx(statistics.mean(OURS.tolist()), rel=1e-14)
    assert sample.std == pytest.approx(statistics.stdev(OURS.tolist()), rel=1e-12)


def test_describe_leaves_open_what_few_values_do_not_define() -> None:
    assert stats.describe(np.array([3.0])) == stats.SampleSummary(1, 3.0, None)
    assert stats.describe(np.array([])) == stats.SampleSummary(0, None, None)


def test_paired_t_of_1_2_3_by_hand() -> None:
    # With two degrees of freedom the t distribution has a closed form: p = 1 - t / sqrt(t^2 + 2).
    t = 2 * math.sqrt(3)
    test = stats.paired_t(np.array([1.0, 2.0, 3.0]))
    assert test.t == pytest.approx(t, rel=1e-14)
    assert test.p == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-12)
    # and its 97.5 % quantile is q = 0.95 / sqrt(2 * 0.975 * 0.025), of which SciPy 1.15 finds 10 digits.
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert stats.t_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - half, 2 + half), rel=1e-10)


def test_paired_t_and_interval_agree_with_scipy() -> None:
    expected = scipy_stats.ttest_rel(OURS, THEIRS)
    test = stats.paired_t(OURS - THEIRS)
    assert (test.t, test.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)
    interval = expected.confidence_interval(0.95)
    assert stats.t_interval(OURS - THEIRS) == pytest.approx((interval.low, interval.high), rel=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_welch_agrees_with_scipy_for_unequal_sizes(size: int) -> None:
    expected = scipy_stats.ttest_ind(OURS, THEIRS[:size], equal_var=False)
    test = stats.welch_t(OURS, THEIRS[:size])
    assert (test.t, test.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)


def test_effect_size_is_t_over_root_n() -> None:
    t = scipy_stats.ttest_rel(OURS, THEIRS).statistic
    assert stats.effect_size(OURS - THEIRS) == pytest.approx(t / math.sqrt(5), rel=1e-12)


@pytest.mark.parametrize("differences", [[0.5], [0.5, 0.5, 0.5]])
def test_nothing_is_tested_with_one_pair_or_without_variance(differences: list[float]) -> None:
    array = np.array(differences)
    statistics = [*stats.paired_t(array), *stats.welch_t(array, array + 1), stats.effect_size(array)]
    assert np.isnan(statistics).all()


def test_samples_of_one_size_are_a_row_each() -> None:
    ours, theirs = (np.random.default_rng(seed).normal(1.0, 0.1, (40, 5)) for seed in (1, 2))
    ours[3] = theirs[3]
    theirs[4] = 1e-160 * theirs[4]  # whose squares underflow
    ours[5] = theirs[5] = 0.7
    functions = {
        stats.paired_t: (ours - theirs,),
        stats.t_interval: (ours - theirs,),
        stats.p_above: (ours - theirs,),
        stats.welch_t: (ours, theirs),
        stats.effect_size: (ours - theirs,),
        stats.probability_greater: (ours, theirs),
        stats.detectable_difference: (ours - theirs,),
        stats.constant_difference: (ours, theirs),
    }
    for function, samples in functions.items():
        alone = [function(*rows) for rows in zip(*samples, strict=True)]
        np.testing.assert_array_equal(np.array(function(*samples)), np.array(alone).T, function.__name__)


def test_holm_agrees_with_the_step_down_by_hand() -> None:
    # sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.5 * 1, each at least the one before and at most 1
    corrected = stats.holm([0.5, 0.01, None, 0.03, 0.02])
    assert corrected[2] is None
    assert [p for p in corrected if p is not None] == pytest.approx([0.5, 0.04, 0.06, 0.06], rel=1e-12)
    assert stats.holm([None, None]) == [None, None]


def test_constant_difference_allows_only_rounding() -> None:
    base = np.array([0.1, 0.2, 0.7])
    assert stats.constant_difference(base + 0.3, base)  # 0.3 is not exactly the difference in every pair
    assert len(set((base + 0.3 - base).tolist())) > 1
    assert not stats.constant_difference(base + 0.3 + np.array([0, 0, 1e-12]), base)
    assert not stats.constant_difference(np.array([1.0]), np.array([2.0]))


@pytest.mark.parametrize(
    ("difference", "direction", "significant", "equivalent", "expected"),
    [
        (1.0, "max", True, False, "better"),
        (-1.0, "max", True, False, "worse"),
        (-1.0, "min", True, False, "better"),
        (1.0, "min", True, False, "worse"),
        (1.0, "none", True, False, "different"),
        (1.0, "max", False, False, "inconclusive"),
        (1.0, "none", False, False, "inconclusive"),
        (1.0, "min", False, True, "equivalent"),
        (1.0, "min", True, True, "equivalent"),
        (-1.0, "none", True, True, "equivalent"),
    ],
)
def test_verdict(
    difference: float, direction: str, significant: bool, equivalent: bool, expected: stats.Verdict
) -> None:
    assert stats.verdict(difference, direction, significant, equivalent) == expected


def test_pareto_front_agrees_with_the_definition() -> None:
    costs = RANDOM.integers(0, 5, (40, 2)).astype(float)
    beaten = [
        any(
            all(o <= p for o, p in zip(other, point, strict=True)) and tuple(other) != tuple(point)
            for other in costs
        )
        for point in costs
    ]
    assert stats.pareto_front(costs).tolist() == [not one for one in beaten]
    assert 0 < sum(beaten) < 40
