"""A fixed table of runs, every statistic of which is computed a second time by other libraries."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.nonparametric import rank_compare_2indep
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_paired

from pmexp.protocol import Bound as Is
from pmexp.protocol import CriterionConfig, Family, ProtocolConfig, Statistic
from pmexp_analysis.numbers.compare import Comparison, Row, comparisons, rows
from pmexp_analysis.sources.values import MetricValues, SectionValues

VALUES: dict[
    tuple[str, str, str], list[float | None]
] = {  # (task, metric, variant) -> of seeds 0, 1, 2, 3, 4
    ("net/digits", "test/accuracy", "baseline"): [0.912, 0.905, 0.918, 0.921, 0.909],
    ("net/digits", "test/accuracy", "packed"): [0.911, 0.907, 0.917, 0.922, None],
    ("net/digits", "test/accuracy", "wide"): [0.871, 0.862, 0.880, 0.879, 0.868],
    ("net/digits", "speed/step_ms", "baseline"): [101.2, 99.8, 100.4, 100.9, 99.5],
    ("net/digits", "speed/step_ms", "packed"): [101.9, 99.9, 101.3, 101.2, 100.4],
    ("net/digits", "speed/step_ms", "wide"): [140.3, 151.2, 138.8, 161.0, 129.9],
    ("net/digits", "grad/norm", "baseline"): [1.3, None, 1.1, 1.9, 0.7],
    ("net/digits", "grad/norm", "packed"): [1.2, 1.0, 1.4, 1.7, 0.9],
    ("net/digits", "grad/norm", "wide"): [None, None, 3.3, 2.9, 3.8],
    ("net/words", "test/accuracy", "baseline"): [0.70, 0.74, 0.69, 0.73, 0.71],
    ("net/words", "test/accuracy", "packed"): [0.73, 0.75, 0.70, 0.76, 0.72],
    ("net/words", "test/accuracy", "wide"): [None, 0.71, None, 0.74, 0.70],
    ("net/words", "speed/step_ms", "baseline"): [55.1, 54.2, 56.0, 55.5, 54.9],
    ("net/words", "speed/step_ms", "packed"): [54.8, 54.4, 55.9, 55.0, 55.1],
    ("net/words", "speed/step_ms", "wide"): [52.1, None, 53.4, 52.2, 51.6],
    ("net/words", "grad/norm", "baseline"): [2.1, 2.5, 2.2, 2.0, 2.9],
    ("net/words", "grad/norm", "packed"): [2.0, 2.6, 2.3, 2.4, 2.7],
    ("net/words", "grad/norm", "wide"): [2.6, 2.8, None, None, 3.1],
}
UNITS = {"test/accuracy": ("fraction", "max"), "speed/step_ms": ("ms", "min"), "grad/norm": ("1", "none")}
PROTOCOL = ProtocolConfig(
    criteria={
        "step": CriterionConfig(
            metric="speed/step_ms",
            statistic=Statistic.relative_change,
            comparison=Is.within,
            threshold=0.02,
        ),
        "digits": CriterionConfig(
            metric="score",
            statistic=Statistic.difference,
            comparison=Is.within,
            threshold=0.005,
            tasks=["net/digits"],
        ),
    }
)


def table() -> list[SectionValues]:
    sections = {task: SectionValues(task, "plain") for task, _, _ in VALUES}
    for (task, metric, variant), values in VALUES.items():
        of_metric = sections[task].metrics.setdefault(metric, MetricValues(*UNITS[metric]))
        of_metric.by_variant[variant] = {
            seed: math.nan if value is None else value for seed, value in enumerate(values)
        }
    return list(sections.values())


def samples(place: tuple[str, str, str]) -> tuple[npt.NDArray[Any], ...]:
    """(ours, theirs) of the pairs, then of all seeds."""
    ours, theirs = VALUES[place], VALUES[place[0], place[1], "baseline"]
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    paired = np.array(both).T
    alone = (np.array([value for value in side if value is not None]) for side in (ours, theirs))
    return (*paired, *alone)


ALL = {(c.task, c.metric, c.variant): c for c in comparisons(table(), PROTOCOL)}
PLACES = sorted(place for place in VALUES if place[2] != "baseline")


def test_every_pair_of_variants_is_there() -> None:
    assert sorted(ALL) == PLACES and len(PLACES) == 12


@pytest.mark.parametrize("row", rows(table()), ids=lambda r: f"{r.task}-{r.metric}-{r.variant}")
def test_rows(row: Row) -> None:
    told = VALUES[row.task, row.metric, row.variant]
    known = np.array([value for value in told if value is not None])
    described = DescrStatsW(known)
    assert (row.mean, row.std) == pytest.approx((described.mean, np.sqrt(described.var_ddof(1))), rel=1e-12)
    assert (row.min, row.max, row.n) == (min(known), max(known), len(known))
    assert row.seeds == [seed for seed, value in enumerate(told) if value is not None]
    assert row.not_finite_seeds == [seed for seed, value in enumerate(told) if value is None]
    assert (row.unit, row.direction) == UNITS[row.metric]


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_pairs(place: tuple[str, str, str]) -> None:
    one, (ours, theirs, _, _) = ALL[place], samples(place)
    differences = DescrStatsW(ours - theirs)
    rel = scipy_stats.ttest_rel(ours, theirs)
    t, p, _ = differences.ttest_mean(0)
    assert (one.n, one.mean_difference) == (len(ours), pytest.approx(differences.mean, rel=1e-12))
    assert one.relative_difference == pytest.approx(scipy_stats.gmean(ours / theirs) - 1, rel=1e-9)
    assert (one.paired_t, one.paired_p) == pytest.approx((rel.statistic, rel.pvalue), rel=1e-9)
    assert (one.paired_t, one.paired_p) == pytest.approx((t, p), rel=1e-9)
    assert (one.ci_low, one.ci_high) == pytest.approx(differences.tconfint_mean(0.05), rel=1e-9)
    assert one.effect_size == pytest.approx(t / np.sqrt(len(ours)), rel=1e-9)
    n = len(ours)
    quantile = scipy_stats.nct.ppf(0.8, n - 1, scipy_stats.t.ppf(0.975, n - 1))
    assert one.detectable == pytest.approx(quantile * np.sqrt(differences.var_ddof(1) / n), rel=1e-6)


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_unpaired(place: tuple[str, str, str]) -> None:
    one, (_, _, ours, theirs) = ALL[place], samples(place)
    welch = scipy_stats.ttest_ind(ours, theirs, equal_var=False)
    t, p, _ = CompareMeans(DescrStatsW(ours), DescrStatsW(theirs)).ttest_ind(usevar="unequal")
    assert (one.welch_t, one.welch_p) == pytest.approx((welch.statistic, welch.pvalue), rel=1e-9)
    assert (one.welch_t, one.welch_p) == pytest.approx((t, p), rel=1e-9)
    u = scipy_stats.mannwhitneyu(ours, theirs).statistic
    assert one.probability_greater == pytest.approx(u / (len(ours) * len(theirs)), rel=1e-12)
    if 0 < one.probability_greater < 1:  # statsmodels divides by zero where the sides do not overlap
        ranked = rank_compare_2indep(ours, theirs).prob1
        assert one.probability_greater == pytest.approx(ranked, rel=1e-12)


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_bootstrap(place: tuple[str, str, str]) -> None:
    one, (ours, theirs, _, _) = ALL[place], samples(place)
    thousandths = np.rint(1000 * (ours - theirs))  # whole, so that rounding breaks no tie between means
    direct = scipy_stats.bootstrap(
        (thousandths,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    expected = direct.low / 1000, direct.high / 1000
    assert (one.bootstrap_low, one.bootstrap_high) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_equivalence(place: tuple[str, str, str]) -> None:
    one, (ours, theirs, _, _) = ALL[place], samples(place)
    if place[1] == "speed/step_ms":
        p, _, _ = ttost_paired(ours, theirs, 0.98, 1.02, transform=np.log)
        assert (one.margin, one.tost_p) == ("±2%", pytest.approx(p, rel=1e-9))
    elif place[:2] == ("net/digits", "test/accuracy"):
        # Scores are multiples of 0.001, and this is half a step of their mean.
        corrected = 0.005 - 0.001 / (2 * len(ours))
        p, _, _ = ttost_paired(ours, theirs, -corrected, corrected)
        assert (one.margin, one.tost_p) == ("±0.005", pytest.approx(p, rel=1e-9))
    else:
        assert (one.margin, one.tost_p) == ("", None)


@pytest.mark.parametrize(
    ("family", "key"), [(Family.metric, (1,)), (Family.task, (0,)), (Family.experiment, ())]
)
def test_holm_goes_over_the_family_that_was_named(family: Family, key: tuple[int, ...]) -> None:
    made = comparisons(table(), ProtocolConfig(family=family))
    groups: dict[Any, list[Comparison]] = {}
    for one in made:
        place = (one.task, one.metric)
        groups.setdefault(tuple(place[k] for k in key), []).append(one)
    assert {len(group) for group in groups.values()} == {{Family.metric: 4, Family.task: 6}.get(family, 12)}
    for group in groups.values():
        expected = multipletests([one.paired_p for one in group], method="holm")[1]
        assert [one.holm_p for one in group] == pytest.approx(expected, rel=1e-12)


def test_verdicts_as_a_reader_of_the_table_would_give_them() -> None:
    assert {"/".join(place): one.verdict for place, one in ALL.items()} == {
        "net/digits/test/accuracy/packed": "equivalent",
        "net/digits/test/accuracy/wide": "worse",
        "net/digits/speed/step_ms/packed": "equivalent",
        "net/digits/speed/step_ms/wide": "worse",
        "net/digits/grad/norm/packed": "inconclusive",
        "net/digits/grad/norm/wide": "inconclusive",
        "net/words/test/accuracy/packed": "inconclusive",
        "net/words/test/accuracy/wide": "inconclusive",
        "net/words/speed/step_ms/packed": "equivalent",
        "net/words/speed/step_ms/wide": "better",
        "net/words/grad/norm/packed": "inconclusive",
        "net/words/grad/norm/wide": "inconclusive",
    }


def test_three_pairs_by_hand() -> None:
    # F(t) with two degrees of freedom is (1 + t / sqrt(2 + t^2)) / 2, its quantile of 1-a (1-2a) / sqrt(2a(1-a)).
    one = ALL["net/words", "grad/norm", "wide"]  # differences 0.5, 0.3, 0.2: mean 1/3, variance 7/300
    error = np.sqrt(7 / 300 / 3)
    t = 1 / 3 / error
    assert one.mean_difference == pytest.approx(1 / 3, rel=1e-12)
    assert one.paired_p == pytest.approx(1 - t / np.sqrt(2 + t * t), rel=1e-9)
    half = 0.95 / np.sqrt(2 * 0.025 * 0.975) * error
    assert (one.ci_low, one.ci_high) == pytest.approx((1 / 3 - half, 1 / 3 + half), rel=1e-9)
    assert one.probability_greater == (4 + 4 + 5) / 15  # values of the baseline below 2.6, 2.8 and 3.1
