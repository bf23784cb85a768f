"""Rows and comparisons out of run folders."""

import shutil

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from pmexp.protocol import ProtocolConfig
from pmexp_analysis.numbers.compare import Comparison, comparisons, rows
from run_folders import Runs


def compared(runs: Runs, baseline: str = "baseline") -> dict[tuple[str, str], Comparison]:
    made = comparisons(runs.experiment().values, ProtocolConfig(baseline=baseline))
    return {(c.metric, c.variant): c for c in made}


def test_a_row_describes_the_seeds(runs: Runs) -> None:
    runs.sample("test/accuracy", packed=[0.9, 0.8, 0.7])
    (row,) = rows(runs.experiment().values)
    assert (row.task, row.system, row.variant, row.metric) == (
        "net/digits",
        "plain",
        "packed",
        "test/accuracy",
    )
    assert (row.unit, row.direction, row.n, row.seeds) == ("fraction", "max", 3, [0, 1, 2])
    assert (row.mean, row.std, row.min, row.max) == pytest.approx((0.8, 0.1, 0.7, 0.9))


def test_pairs_are_made_by_seed_and_missing_seeds_named_by_side(runs: Runs) -> None:
    base = {0: 0.90, 1: 0.93, 2: 0.95, 4: 0.91}
    ours = {4: 0.95, 2: 0.96, 1: 0.95, 3: 0.10, 5: 0.20}  # written in another order
    for variant, values in (("baseline", base), ("packed", ours)):
        for seed, value in values.items():
            runs.finished(variant, seed, {"test/accuracy": value})
    one = compared(runs)["test/accuracy", "packed"]
    assert (one.n, one.missing_seeds) == (3, {"variant": [0], "baseline": [3, 5]})
    pairs = scipy_stats.ttest_rel([0.95, 0.96, 0.95], [0.93, 0.95, 0.91])
    assert (one.paired_t, one.paired_p) == pytest.approx((pairs.statistic, pairs.pvalue), rel=1e-9)
    welch = scipy_stats.ttest_ind(list(ours.values()), list(base.values()), equal_var=False)
    assert (one.welch_t, one.welch_p) == pytest.approx((welch.statistic, welch.pvalue), rel=1e-9)
    assert one.mean_difference == pytest.approx(0.07 / 3)
    assert one.relative_difference == pytest.approx(
        (0.95 * 0.96 * 0.95 / (0.93 * 0.95 * 0.91)) ** (1 / 3) - 1
    )
    interval = pairs.confidence_interval(0.95)
    assert (one.ci_low, one.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_holm_spans_the_tasks_and_variants_of_a_metric_and_no_other_metric(runs: Runs) -> None:
    random = np.random.default_rng(3)
    for task in ("net/digits", "net/words"):
        for variant, shift in (("baseline", 0.0), ("packed", 0.02), ("quantised", 0.01)):
            for seed in range(5):
                finals = {
                    "test/accuracy": 0.9 + shift + random.normal(0, 0.01),
                    "val/loss": random.normal(1, 0.1),
                }
                runs.finished(variant, seed, finals, task=task)
    made = comparisons(runs.experiment().values, ProtocolConfig())
    for metric in ("test/accuracy", "val/loss"):
        family = [c for c in made if c.metric == metric]
        assert len(family) == 4
        expected = multipletests([c.paired_p for c in family], method="holm")[1]
        assert [c.holm_p for c in family] == pytest.approx(expected)
        assert any(c.holm_p != c.paired_p for c in family)


def test_a_clear_difference_is_judged_by_the_metrics_direction(runs: Runs) -> None:
    base, more = [1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.05]
    for metric in ("test/accuracy", "test/loss", "grad/norm"):
        for variant, values in (("baseline", base), ("packed", more)):
            for seed, value in enumerate(values):
                runs.finished(
                    variant,
                    seed,
                    {metric: value},
                    run_id=f"{metric.replace('/', '-')}{variant}{seed}",
                    task=f"net/{metric.replace('/', '-')}",
                )
    verdicts = {metric: one.verdict for (metric, _), one in compared(runs).items()}
    assert verdicts == {"test/accuracy": "better", "test/loss": "worse", "grad/norm": "different"}


def test_equal_bits_are_equal_and_the_last_bit_is_not(runs: Runs) -> None:
    values = [0.1, 0.2, 0.3]
    runs.sample("test/loss", baseline=values, same=values, near=[0.1, 0.2, np.nextafter(0.3, 1)])
    table = compared(runs)
    same, near = table["test/loss", "same"], table["test/loss", "near"]
    assert (same.verdict, same.mean_difference, same.paired_p, same.holm_p) == ("equal", 0.0, None, None)
    assert (same.ci_low, same.ci_high) == (0.0, 0.0)
    assert near.verdict != "equal"


def test_an_exact_byte_count_is_a_constant_difference(runs: Runs) -> None:
    runs.sample(
        "memory/saved_bytes", baseline=[1000.0, 2000.0], packed=[900.0, 1900.0], wide=[1001.0, 2001.0]
    )
    table = compared(runs)
    packed, wide = table["memory/saved_bytes", "packed"], table["memory/saved_bytes", "wide"]
    assert (packed.verdict, packed.note, packed.mean_difference) == ("better", "constant difference", -100.0)
    assert (packed.paired_t, packed.paired_p, packed.holm_p, packed.effect_size) == (None, None, None, None)
    assert (packed.ci_low, packed.ci_high) == (-100.0, -100.0)
    assert (wide.verdict, wide.note) == ("worse", "constant difference")


def test_one_pair_of_a_sampled_metric_is_never_significant(runs: Runs) -> None:
    runs.sample("memory/peak_bytes", baseline=[1000.0], packed=[1.0], same=[1000.0])
    table = compared(runs)
    packed = table["memory/peak_bytes", "packed"]
    assert (packed.n, packed.verdict, packed.ci_low, packed.paired_p) == (1, "inconclusive", None, None)
    assert packed.note == "1 pair: at least 3 are needed"
    assert table["memory/peak_bytes", "same"].verdict == "equal"
    assert {row.std for row in rows(runs.experiment().values)} == {None}


def test_one_pair_of_a_counted_metric_has_all_there_is_to_know(runs: Runs) -> None:
    runs.sample("memory/saved_bytes", baseline=[1000.0], packed=[1.0], wide=[1001.0])
    table = compared(runs)
    packed, wide = table["memory/saved_bytes", "packed"], table["memory/saved_bytes", "wide"]
    assert (packed.verdict, packed.note, packed.ci_low) == ("better", "an exact count", None)
    assert wide.verdict == "worse"


def test_two_pairs_of_a_sampled_metric_prove_nothing_however_clear(runs: Runs) -> None:
    runs.sample("speed/step_ms", baseline=[100.0, 101.0], slow=[150.0, 151.0], noisy=[150.0, 151.1])
    for variant in ("slow", "noisy"):
        one = compared(runs)["speed/step_ms", variant]
        assert (one.n, one.verdict, one.note) == (2, "inconclusive", "2 pairs: at least 3 are needed")


def test_a_peak_that_the_allocator_keeps_is_counted_and_one_of_the_system_is_not(runs: Runs) -> None:
    for source in ("CUDA allocator, of the run", "operating system, of the process"):
        for variant, value in (("baseline", 100.0), ("packed", 80.0)):
            told = {"environment": {"peak_memory_source": source}}
            runs.finished(variant, 0, {"memory/peak_bytes": value}, **told)
        experiment = runs.experiment()
        (one,) = comparisons(experiment.values, ProtocolConfig(), experiment.counted)
        assert one.verdict == ("better" if source.startswith("CUDA") else "inconclusive")
        shutil.rmtree(runs.folder)


def test_without_a_common_seed_nothing_is_comparable(runs: Runs) -> None:
    runs.finished("baseline", 0, {"test/loss": 1.0})
    runs.finished("packed", 1, {"test/loss": 0.5})
    one = compared(runs)["test/loss", "packed"]
    assert (one.n, one.verdict, one.mean_difference) == (0, "not comparable", None)
    assert one.missing_seeds == {"variant": [0], "baseline": [1]}
    alone = compared(runs, baseline="absent")
    assert {one.verdict for one in alone.values()} == {"not comparable"}
    assert set(alone) == {("test/loss", "baseline"), ("test/loss", "packed")}


def test_a_baseline_of_zero_has_no_relative_difference(runs: Runs) -> None:
    runs.sample("memory/mask_bytes", baseline=[0.0, 0.0], packed=[5.0, 5.0])
    assert compared(runs)["memory/mask_bytes", "packed"].relative_difference is None


def test_a_value_that_is_not_finite_counts_nowhere_and_is_named(runs: Runs) -> None:
    runs.sample("test/loss", baseline=[1.0, 1.1, 1.2], packed=[1.0, None, 1.3])
    experiment = runs.experiment()
    packed = next(row for row in rows(experiment.values) if row.variant == "packed")
    assert (packed.n, packed.seeds, packed.not_finite_seeds, packed.mean) == (2, [0, 2], [1], 1.15)
    one = compared(runs)["test/loss", "packed"]
    assert (one.n, one.missing_seeds["variant"]) == (2, [1])
    (lost,) = experiment.missing
    assert (lost.variant, lost.seed, lost.why) == ("packed", 1, "finished, but not finite: test/loss")
