"""Numbers that statistics choke on, and what holds for any numbers whatever."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from pmexp.protocol import Bound as Is
from pmexp.protocol import CriterionConfig, ProtocolConfig, Statistic
from pmexp_analysis.criteria import Judged, judge
from pmexp_analysis.numbers import sigmas, stats
from pmexp_analysis.numbers.compare import Comparison, comparisons
from pmexp_analysis.sources.assemble import assemble
from pmexp_analysis.sources.experiment import Experiment, Labels, Run
from pmexp_analysis.sources.values import values_of
from run_folders import Runs

STEP = "speed/step_ms"
Values = dict[str, dict[int, float]]


def experiment(values: Values, metric: str = STEP, criterion: CriterionConfig | None = None) -> Experiment:
    """Runs out of variant -> seed -> value."""
    protocol = {
        "method": "packed",
        "criteria": {} if criterion is None else {"it": {**vars(criterion)}},
    }
    runs = [
        Run(
            f"{variant}{seed}",
            Labels("net/digits", "plain", variant, seed),
            {metric: value},
            protocol=protocol,
        )
        for variant, by_seed in values.items()
        for seed, value in by_seed.items()
    ]
    return assemble("demo", "here", runs)


def compared(values: Values, metric: str = STEP, margin: float | None = None) -> Comparison:
    """Returns the comparison of the variant "packed" with the baseline."""
    criterion = None
    if margin is not None:
        criterion = CriterionConfig(
            metric=metric, statistic=Statistic.difference, comparison=Is.within, threshold=margin
        )
    made = experiment(values, metric, criterion)
    (one,) = (c for c in comparisons(made.values, made.protocol) if c.variant == "packed")
    return one


def judged(values: Values, criterion: CriterionConfig) -> Judged:
    (one,) = judge(experiment(values, criterion=criterion), [])
    return one


def sides(baseline: list[float], packed: list[float]) -> Values:
    return {"baseline": dict(enumerate(baseline)), "packed": dict(enumerate(packed))}


NUMBERS = ("paired_t", "paired_p", "holm_p", "effect_size", "detectable", "ci_low", "bootstrap_low")


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_equal_values_are_equal_at_any_n(n: int) -> None:
    one = compared(sides([1.5] * n, [1.5] * n))
    assert (one.verdict, one.mean_difference, one.relative_difference, one.n) == ("equal", 0.0, 0.0, n)
    assert one.paired_p is one.holm_p is one.welch_p is one.effect_size is None
    assert one.probability_greater == 0.5


def test_one_pair_has_a_difference_and_no_spread() -> None:
    one = compared(sides([1.0], [2.0]))
    assert (one.verdict, one.mean_difference) == ("inconclusive", 1.0)
    assert [getattr(one, name) for name in NUMBERS] == [None] * len(NUMBERS)


def test_a_difference_without_variance_is_sure_from_three_pairs_on() -> None:
    assert compared(sides([1.0, 2.0], [2.0, 3.0])).verdict == "inconclusive"
    one = compared(sides([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]))
    assert (one.verdict, one.note, one.ci_low, one.ci_high) == ("worse", "constant difference", 1.0, 1.0)


@pytest.mark.parametrize("ulps", [[0, 0, 1], [1, 1, 1], [1, 0, -1]])
def test_differences_of_the_last_bit_are_never_called_better_or_worse(ulps: list[int]) -> None:
    base = [1e6, 1e6 + 7, 1e6 + 11]
    last = [value + each * math.ulp(value) for value, each in zip(base, ulps, strict=True)]
    assert compared(sides(base, last)).verdict == "inconclusive"


@pytest.mark.parametrize("scale", [2.0**-990, 2.0**-40, 1.0, 2.0**40, 2.0**990])
def test_statistics_hold_at_any_scale(scale: float) -> None:
    base, ours = [1.0, 1.1, 0.9, 1.05, 0.95], [1.2, 1.25, 1.11, 1.3, 1.1]
    plain = compared(sides(base, ours))
    one = compared(sides([value * scale for value in base], [value * scale for value in ours]))
    for name in (
        "paired_t",
        "paired_p",
        "holm_p",
        "welch_t",
        "welch_p",
        "effect_size",
        "probability_greater",
    ):
        assert getattr(one, name) == pytest.approx(getattr(plain, name), rel=1e-6), name
    for name in ("mean_difference", "ci_low", "ci_high", "bootstrap_low", "bootstrap_high", "detectable"):
        assert getattr(one, name) == pytest.approx(getattr(plain, name) * scale, rel=1e-6), name
    assert (one.verdict, one.relative_difference) == ("worse", pytest.approx(plain.relative_difference))


@pytest.mark.parametrize("statistic", [Statistic.relative_change, Statistic.times_smaller])
def test_the_largest_and_the_smallest_number_have_a_ratio_in_words(statistic: Statistic) -> None:
    for base, ours in (([1e300] * 3, [1e-300] * 3), ([1e-300] * 3, [1e300, 1e299, 1e300])):
        criterion = CriterionConfig(metric=STEP, statistic=statistic, threshold=1.0)
        assert judged(sides(base, ours), criterion).result in ("pass", "fail")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_value(value: float, runs: Runs) -> None:
    runs.sample(STEP, baseline=[1.0, 1.1, 1.2], packed=[1.0, value, 1.3])
    experiment = runs.experiment()
    (one,) = comparisons(experiment.values, ProtocolConfig())
    assert (one.n, one.missing_seeds) == (2, {"variant": [1], "baseline": []})
    assert all(
        value is None or math.isfinite(value) for value in vars(one).values() if isinstance(value, float)
    )


def test_a_method_without_a_finite_value_is_not_comparable() -> None:
    one = compared(sides([1.0, 2.0], [math.nan, math.nan]))
    assert (one.n, one.verdict, one.note) == (0, "not comparable", "no seed has runs of both")


def test_a_baseline_of_zero_and_negative_numbers() -> None:
    zero = compared(sides([0.0, 0.0, 0.0], [1.0, 1.1, 0.9]))
    assert (zero.relative_difference, zero.verdict) == (None, "worse")
    around = compared(sides([-1.0, 1.0, 0.0], [1.0, 2.0, 1.5]))
    assert around.relative_difference is None
    below = compared(sides([-2.0, -2.1, -1.9], [-1.0, -1.2, -0.9]))
    assert below.verdict == "worse" and below.mean_difference > 0


def test_without_baseline_or_method_or_criteria() -> None:
    alone = experiment({"packed": {0: 1.0}}, criterion=CriterionConfig(metric=STEP))
    assert [c.verdict for c in comparisons(alone.values, alone.protocol)] == ["not comparable"]
    assert judge(alone, [])[0].result == "inconclusive"  # the mean of one run
    lone = experiment({"baseline": {0: 1.0}}, criterion=CriterionConfig(metric=STEP))
    assert comparisons(lone.values, lone.protocol) == []
    assert judge(lone, [])[0].why.endswith("no run here is of it, they are of 'baseline'; run packed")
    assert judge(experiment({"baseline": {0: 1.0}}), []) == []


def test_seeds_that_differ_on_the_two_sides_share_no_pair() -> None:
    one = compared({"baseline": {0: 1.0, 1: 2.0, 2: 3.0}, "packed": {2: 3.5, 3: 1.0, 4: 2.0}})
    assert (one.n, one.missing_seeds) == (1, {"variant": [0, 1], "baseline": [3, 4]})
    assert one.welch_p is not None and one.paired_p is None


def test_a_counted_metric_of_one_run_inside_its_margin_is_no_worse() -> None:
    one = compared(sides([1000.0], [1001.0]), "memory/saved_bytes", margin=5.0)
    assert one.verdict == "equivalent"
    assert compared(sides([1000.0], [1006.0]), "memory/saved_bytes", margin=5.0).verdict == "worse"


# --- for any numbers

number = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 3))
pairs = st.lists(st.tuples(number, number), min_size=3, max_size=6)
quick = settings(max_examples=8)


def of(both: list[tuple[float, float]], margin: float | None = None) -> Comparison:
    return compared(sides([a for a, _ in both], [b for _, b in both]), margin=margin)


def close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)


@quick
@given(pairs)
def test_changing_sides_turns_the_signs_and_the_verdict(both: list[tuple[float, float]]) -> None:
    one, other = of(both), of([(b, a) for a, b in both])
    turned = {"better": "worse", "worse": "better"}
    assert other.verdict == turned.get(one.verdict, one.verdict)
    assert close(other.paired_p, one.paired_p) and close(other.welch_p, one.welch_p)
    assert close(other.mean_difference, -one.mean_difference)
    assert close(other.probability_greater, 1 - one.probability_greater)
    for low, high in (("ci_low", "ci_high"),):
        assert close(getattr(other, low), -getattr(one, high))


positive = st.lists(st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)), min_size=3, max_size=6)


@quick
@given(positive, st.sampled_from([0.125, 3.7, 1e5]))
def test_a_unit_changes_no_p_and_no_relative_criterion(both: list[tuple[float, float]], unit: float) -> None:
    assume(np.ptp([b / a for a, b in both]) > 1e-6)
    scaled = [(a * unit, b * unit) for a, b in both]
    one, other = of(both), of(scaled)
    assert (close(one.paired_p, other.paired_p), one.verdict) == (True, other.verdict)
    for statistic in (Statistic.relative_change, Statistic.times_smaller, Statistic.difference_in_sigma):
        criterion = CriterionConfig(metric=STEP, statistic=statistic, threshold=0.1)
        before, after = (
            judged(sides([a for a, _ in values], [b for _, b in values]), criterion)
            for values in (both, scaled)
        )
        assert before.result == after.result and close(before.value, after.value)
        assert close(before.parts[0].low, after.parts[0].low)


@quick
@given(pairs, number)
def test_one_more_seed_of_equal_values_adds_nothing_to_the_sum(
    both: list[tuple[float, float]], value: float
) -> None:
    one, other = of(both), of([*both, (value, value)])
    assert other.n == one.n + 1
    assert close(other.mean_difference * other.n, one.mean_difference * one.n)
    assert (other.verdict == "equal") == (one.verdict == "equal")


@quick
@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_runs_is_irrelevant(both: list[tuple[float, float]], random: Any) -> None:
    made = experiment(sides([a for a, _ in both], [b for _, b in both]))
    shuffled = list(made.finished)
    random.shuffle(shuffled)
    (one,), (other,) = (comparisons(values, made.protocol) for values in (made.values, values_of(shuffled)))
    assert other.verdict == one.verdict and other.missing_seeds == one.missing_seeds
    for name in ("n", *NUMBERS, "welch_p", "ci_high"):
        assert close(getattr(one, name), getattr(other, name)), name


@quick
@given(pairs, st.floats(0.01, 500))
def test_equivalent_is_said_just_where_the_interval_lies_inside(
    both: list[tuple[float, float]], margin: float
) -> None:
    one = of(both, margin)
    differences = np.array([b - a for a, b in both])
    low, high = stats.t_interval(differences, 0.90)
    assume(min(abs(high - margin), abs(low + margin)) > 1e-6)
    if one.verdict == "equal":
        return
    assert (one.verdict == "equivalent") == (-margin < low and high < margin)


spreads = st.lists(st.floats(-3, 3), min_size=3, max_size=6).filter(lambda values: np.ptp(values) > 0.1)


@settings(max_examples=25)
@given(spreads, spreads, st.floats(-8, 8), st.floats(0.2, 4))
def test_an_interval_in_sigmas_is_one(
    differences: list[float], baseline: list[float], shift: float, margin: float
) -> None:
    apart, base = np.array(differences) + shift, np.array(baseline)
    low, high = sigmas.interval(apart, base, 0.9)
    estimate = apart.mean() / base.std(ddof=1)
    assert low - 1e-9 <= estimate <= high + 1e-9
    wider = sigmas.interval(apart, base, 0.99)
    assert wider[0] <= low and high <= wider[1]
    turned = sigmas.interval(-apart, base, 0.9)
    assert turned == pytest.approx((-high, -low), rel=1e-9)
    known = stats.t_interval(apart / base.std(ddof=1), 0.9)
    assert (known[0] > 0) == (low > 0) and (known[1] < 0) == (high < 0)  # not knowing sigma hides no sign
    p = sigmas.tost(apart, base, margin)
    assume(abs(max(high, -low) - margin) > 1e-6)
    assert (p < 0.05) == (max(high, -low) < margin)


@pytest.mark.parametrize("mean", [-4.0, -0.3, 0.3, 4.0])
def test_the_ends_in_sigmas_are_where_the_limits_of_mean_and_deviation_meet(mean: float) -> None:
    apart, base = mean + np.array([0.9, -0.4, 0.1, -0.6, 0.0]), np.array([1.0, 2.5, 3.0, 1.7, 2.1])
    error = scipy_stats.sem(apart) * scipy_stats.t.ppf(0.95, 4)
    sigma = base.std(ddof=1)
    least, most = np.sqrt(4 * sigma**2 / scipy_stats.chi2.ppf([0.95, 0.05], 4))
    low, high = sigmas.interval(apart, base, 0.9)
    assert low < apart.mean() / sigma < high
    # The upper limit of mean - c sigma takes the small sigma for c > 0 and the large one for c < 0.
    for end, side in ((high, 1), (low, -1)):
        far = sigma - least if end * side > 0 else most - sigma
        assert side * (end * sigma - apart.mean()) == pytest.approx(math.hypot(error, end * far), rel=1e-9)


def test_two_pairs_inside_the_margin_are_not_equivalent_yet() -> None:
    one = compared(sides([1.0, 2.0], [1.1, 2.1]), margin=5.0)
    assert (one.verdict, one.note) == ("inconclusive", "2 pairs: at least 3 are needed")


def test_no_runs_have_no_comparisons() -> None:
    assert comparisons(values_of([]), ProtocolConfig()) == []
