"""Error rates, power and coverage of the verdict, on simulated seeds with fixed random numbers."""

import numpy as np
import pytest
from scipy import integrate, special
from scipy import stats as scipy_stats

from pmexp.protocol import Bound as Is
from pmexp.protocol import CriterionConfig, ProtocolConfig, Statistic
from pmexp_analysis.criteria.estimates import Sides
from pmexp_analysis.criteria.pairs import judge_pairs
from pmexp_analysis.criteria.power import Spread, seeds_needed, spread_for
from pmexp_analysis.criteria.result import LEVEL, TaskResult
from pmexp_analysis.numbers import sigmas, stats
from pmexp_analysis.numbers.compare import comparisons
from pmexp_analysis.numbers.resampling import bootstrap_intervals
from pmexp_analysis.sources.values import MetricValues, SectionValues

N = 5


def within_binomial(hits: int, trials: int, rate: float) -> bool:
    """Whether `hits` lie in the central 99.9 % of the binomial distribution."""
    low, high = scipy_stats.binom.interval(0.999, trials, rate)
    return bool(low <= hits <= high)


def at_most_binomial(hits: int, trials: int, rate: float) -> bool:
    return bool(hits <= scipy_stats.binom.ppf(0.999, trials, rate))


def experiments(count: int, shift: float, sigma: float, seed: int) -> list[SectionValues]:
    """`count` tasks of N pairs whose differences are normal."""
    random = np.random.default_rng(seed)
    base = random.normal(100, 5, (count, N))
    ours = base + random.normal(shift, sigma, (count, N))
    sides = zip(base.tolist(), ours.tolist(), strict=True)
    return [
        SectionValues(f"net/{task:04}", "plain", {"speed/step_ms": MetricValues("ms", "min", {
            "baseline": dict(enumerate(theirs)), "packed": dict(enumerate(mine)),
        })})
        for task, (theirs, mine) in enumerate(sides)
    ]  # fmt: skip


def test_false_positives_of_the_paired_test_are_five_percent() -> None:
    trials = 1000
    p = stats.paired_t(np.random.default_rng(1).normal(0, 1, (trials, N))).p
    assert within_binomial((p < 0.05).sum(), trials, 0.05)


def test_holm_keeps_the_rate_of_any_false_verdict_in_a_family() -> None:
    families, size = 200, 6
    sampled = np.random.default_rng(2).normal(0, 1, (families, size, N))
    wrong = sum(
        any(p is not None and p < 0.05 for p in stats.holm(stats.paired_t(family).p.tolist()))
        for family in sampled
    )
    assert within_binomial(wrong, families, 1 - (1 - 0.05 / size) ** size)  # independent, all null


def test_verdicts_on_a_family_without_differences_are_inconclusive() -> None:
    family = comparisons(experiments(120, 0.0, 1.0, seed=3), ProtocolConfig())
    assert {one.verdict for one in family} == {"inconclusive"} and len(family) == 120
    assert sum(one.paired_p < 0.05 for one in family) > 0  # which Holm's correction takes back


def tost_power(mean: float, sigma: float, margin: float, n: int) -> float:
    """Exact: given the standard deviation, the mean must lie within margin - t s / sqrt(n); chi is integrated."""
    t, error = scipy_stats.t.ppf(0.95, n - 1), sigma / np.sqrt(n)
    most = margin / (t * error)  # the largest s / sigma that leaves any room

    def at(ratio: float) -> float:
        room = margin - t * ratio * error
        inside = scipy_stats.norm.cdf((room - mean) / error) - scipy_stats.norm.cdf((-room - mean) / error)
        return float(inside * scipy_stats.chi.pdf(ratio * np.sqrt(n - 1), n - 1) * np.sqrt(n - 1))

    return float(integrate.quad(at, 0, most)[0])


@pytest.mark.parametrize("mean", [1.0, 0.5, 0.0], ids=["edge", "half", "centre"])
def test_tost_has_its_exact_size_and_power(mean: float) -> None:
    trials, sigma = 1000, 0.6
    sampled = np.random.default_rng(4).normal(mean, sigma, (trials, N))
    passes = (stats.tost(sampled, sampled, -1.0, 1.0) < 0.05).sum()
    assert within_binomial(passes, trials, tost_power(mean, sigma, 1.0, N))
    if mean == 1.0:
        assert tost_power(mean, sigma, 1.0, N) == pytest.approx(0.05, abs=1e-3)


def judged(criterion: CriterionConfig, base: np.ndarray, ours: np.ndarray) -> list[TaskResult]:
    """Returns a TaskResult for each row of `ours` and `base`, of shape (trials, n)."""
    every = [
        Sides("t", "s", dict(enumerate(a)), dict(enumerate(b)), "speed/step_ms", False)
        for a, b in zip(ours.tolist(), base.tolist(), strict=True)
    ]
    return judge_pairs(criterion, every)


CASES = {
    "throughput": (Statistic.relative_change, Is.within, 0.02, 0.02),
    "throughput below": (Statistic.relative_change, Is.within, 0.02, -0.02),
    "memory": (Statistic.relative_change, Is.at_most, -0.10, -0.10),
    "compression": (Statistic.times_smaller, Is.at_least, 1.5, 1 / 1.5 - 1),
    "difference": (Statistic.difference, Is.at_least, 3.0, 0.03),
}


@pytest.mark.parametrize("case", CASES)
def test_no_more_than_five_percent_pass_wrongly_at_the_threshold(case: str) -> None:
    statistic, comparison, threshold, change = CASES[case]
    trials, random = 150, np.random.default_rng(5)
    base = (
        np.full((trials, N), 100.0)
        if statistic is Statistic.difference
        else random.normal(100, 5, (trials, N))
    )
    noise = random.normal(0, 0.01, base.shape)
    ours = (
        base + 100 * (change + noise)
        if statistic is Statistic.difference
        else base * (1 + change) * np.exp(noise)
    )
    criterion = CriterionConfig(
        metric="speed/step_ms", statistic=statistic, comparison=comparison, threshold=threshold
    )
    results = [part.result for part in judged(criterion, base, ours)]
    assert at_most_binomial(results.count("pass"), trials, 0.05)
    assert at_most_binomial(results.count("fail"), trials, 0.05)


def test_a_relative_change_of_coarse_scores_near_their_ceiling_passes_no_more_often() -> None:
    """Accuracies of 100 samples, 99.5 % right and 1 % less; without half a step more 7.3 % would pass."""
    trials, samples, random = 1500, 100, np.random.default_rng(11)
    base, ours = (random.binomial(samples, p, (trials, N)) / samples for p in (0.995, 0.995 * 0.99))
    criterion = CriterionConfig(
        metric="test/accuracy",
        statistic=Statistic.relative_change,
        comparison=Is.no_worse,
        threshold=0.01,
    )
    every = [
        Sides("t", "s", dict(enumerate(a)), dict(enumerate(b)), "test/accuracy", False)
        for a, b in zip(ours.tolist(), base.tolist(), strict=True)
    ]
    results = [part.result for part in judge_pairs(criterion, every)]
    assert at_most_binomial(results.count("pass"), trials, 0.05)
    assert at_most_binomial(results.count("fail"), trials, 0.05)


@pytest.mark.parametrize("noise", [0.02, 0.3], ids=["pairs alike", "pairs apart"])
def test_a_margin_in_sigmas_allows_for_not_knowing_sigma(noise: float) -> None:
    # The baseline's deviation of five seeds is often twice as large as it is in truth, and so would the margin be.
    trials, random = 250, np.random.default_rng(6)
    base = random.normal(100, 1, (trials, N))
    ours = base + 0.5 + random.normal(0, noise, base.shape)
    criterion = CriterionConfig(
        metric="speed/step_ms",
        statistic=Statistic.difference_in_sigma,
        comparison=Is.within,
        threshold=0.5,
    )
    results = [part.result for part in judged(criterion, base, ours)]
    assert at_most_binomial(results.count("pass"), trials, 0.05)
    assert at_most_binomial(results.count("fail"), trials, 0.05)


@pytest.mark.parametrize("two_sided", [False, True], ids=["no_worse", "within"])
@pytest.mark.parametrize(("pairs", "margin"), [(3, 1.0), (5, 0.5), (5, 1.0), (10, 0.5)])
def test_as_many_pairs_as_are_said_to_be_needed_pass_in_four_of_five_new_sweeps(
    pairs: int, margin: float, two_sided: bool
) -> None:
    """Each trial plans by the spread of a few pairs; were that taken for the true one, 53 to 78 % would pass."""
    trials, random = 2000, np.random.default_rng(pairs)
    passed = 0
    for std in np.sqrt(random.chisquare(pairs - 1, trials) / (pairs - 1)):
        n = seeds_needed(Spread(float(std), pairs - 1), margin, two_sided)
        error = special.stdtrit(n - 1, 0.95) * np.sqrt(random.chisquare(n - 1) / (n - 1) / n)
        mean = random.normal(0, 1 / np.sqrt(n))
        passed += mean + error <= margin and (not two_sided or mean - error >= -margin)
    assert 0.775 < passed / trials < 0.9  # 0.8, less three standard errors


def test_an_open_claim_says_how_many_pairs_it_needs_and_by_what_spread() -> None:
    criterion = CriterionConfig(
        metric="speed/step_ms", statistic=Statistic.difference, comparison=Is.within, threshold=1.0
    )
    pairs = np.array([-1.0, 1.0, -1.0, 1.0, 0.0]) * 2  # standard deviation 2
    (part,) = judged(criterion, np.full((1, 5), 100.0), 100 + pairs[None])
    assert part.seeds_needed == seeds_needed(Spread(2.0, 4), 1.0, two_sided=True) == 66
    said = "about 66 seeds would show it (power 0.8, the spread known from 5 pairs alone)"
    assert part.why.endswith(f"if there is no true difference, {said}")
    assert tost_power(0, 2, 1.0, 66) > 0.95  # if the spread were known to be 2, that many were not needed


def test_a_margin_in_sigmas_needs_more_pairs_since_sigma_is_estimated_in_each_sweep() -> None:
    trials, pairs, random = 300, 5, np.random.default_rng(10)
    criterion = CriterionConfig(
        metric="speed/step_ms",
        statistic=Statistic.difference_in_sigma,
        comparison=Is.no_worse,
        threshold=0.5,
    )

    def sweep(n: int) -> tuple[np.ndarray, np.ndarray]:
        base = random.normal(100, 1, n)
        return base, 100 + 0.95 * (base - 100) + random.normal(0, (1 - 0.95**2) ** 0.5, n)

    passed = 0
    for _ in range(trials):
        base, ours = sweep(pairs)
        std = float(stats.spread(ours - base) / stats.spread(base))
        base, ours = sweep(seeds_needed(spread_for(criterion, std, pairs - 1), criterion.threshold))
        passed += sigmas.interval(ours - base, base, LEVEL)[1] <= criterion.threshold
    assert passed / trials > 0.85  # 0.77 where the error of sigma is left out


def test_coverage_of_the_intervals() -> None:
    trials = 1000
    sampled = np.random.default_rng(8).normal(3, 1, (trials, N))
    low, high = stats.t_interval(sampled)
    assert within_binomial(((low <= 3) & (high >= 3)).sum(), trials, 0.95)
    low, high = bootstrap_intervals(sampled[:600])
    covered = ((low <= 3) & (high >= 3)).mean()
    assert 0.78 < covered < 0.88  # and not 95 %: too narrow with five seeds, as its docstring says


def test_detectable_is_found_in_four_of_five_experiments() -> None:
    """Each trial has the spread of N pairs, and draws N new ones; 0.69 would be found of the spread taken for the true one."""
    trials, random = 2000, np.random.default_rng(9)
    spreads = np.sqrt(random.chisquare(N - 1, (trials, 1)) / (N - 1))
    sampled = random.normal(stats.detectable_effect(N) * spreads, 1, (trials, N))
    significant = (stats.paired_t(sampled).p < 0.05).sum()
    assert within_binomial(significant, trials, 0.8)
