"""Every statistic of a criterion: what passes, fails, stays open or was not measured, and the words for it."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from judged_runs import BASE, METHOD, MORE, STEP, judged, judged_all
from pmexp.protocol import Bound as Is
from pmexp.protocol import ComparedLabel, CriterionConfig, ProtocolConfig, Statistic
from pmexp_analysis.criteria import Judged, answer
from run_folders import Runs

NOISE = np.array([0.2, -0.1, 0.3, -0.3, -0.1])


def times(factor: float) -> list[float]:
    return [value * factor + noise for value, noise in zip(BASE, NOISE, strict=True)]


WITHIN, NO_WORSE = {"comparison": Is.within}, {"comparison": Is.no_worse}
PAIRS: list[tuple[Statistic, dict[str, Any], float, str]] = [
    (Statistic.mean, {"threshold": 120.0}, 1.0, "pass"),
    (Statistic.mean, {"threshold": 90.0}, 1.0, "fail"),
    (Statistic.mean, {"threshold": 100.1}, 1.0, "inconclusive"),
    (Statistic.times_smaller, {"threshold": 1.9, **MORE}, 0.5, "pass"),
    (Statistic.times_smaller, {"threshold": 2.1, **MORE}, 0.5, "fail"),
    (Statistic.times_smaller, {"threshold": 2.0, **MORE}, 0.5, "inconclusive"),
    (Statistic.relative_change, {"threshold": -0.1}, 0.85, "pass"),
    (Statistic.relative_change, {"threshold": -0.1}, 0.95, "fail"),
    (Statistic.relative_change, {"threshold": -0.1}, 0.9, "inconclusive"),
    (Statistic.relative_change, {"threshold": 0.02, **WITHIN}, 1.0, "pass"),
    (Statistic.relative_change, {"threshold": 0.02, **WITHIN}, 1.05, "fail"),
    (Statistic.relative_change, {"threshold": 0.02, **WITHIN}, 0.95, "pass"),  # less of it is better
    (Statistic.relative_change, {"threshold": 0.02, **NO_WORSE}, 1.0, "pass"),
    (Statistic.relative_change, {"threshold": 0.02, **NO_WORSE}, 1.02, "inconclusive"),
    (Statistic.relative_change, {"threshold": 0.02, **NO_WORSE}, 1.05, "fail"),
    (Statistic.difference_in_sigma, {"threshold": 1.0, **NO_WORSE}, 0.8, "pass"),
    (Statistic.difference_in_sigma, {"threshold": 1.0, **NO_WORSE}, 1.1, "fail"),
    (Statistic.relative_change, {"threshold": 0.02, **WITHIN}, 1.02, "inconclusive"),
    (Statistic.difference, {"threshold": 3.0}, 1.01, "pass"),
    (Statistic.difference, {"threshold": 3.0}, 1.05, "fail"),
    (Statistic.difference, {"threshold": 1.0}, 1.01, "inconclusive"),
    (Statistic.difference, {"threshold": -3.0, **MORE}, 0.99, "pass"),
    (Statistic.difference_in_sigma, {"threshold": 1.0, **WITHIN}, 1.0, "pass"),
    (Statistic.difference_in_sigma, {"threshold": 1.0, **WITHIN}, 1.1, "fail"),
    (Statistic.difference_in_sigma, {"threshold": 0.2, **WITHIN}, 1.0, "inconclusive"),
    (Statistic.p_worse, {"threshold": 0.05, **MORE}, 0.95, "pass"),
    (Statistic.p_worse, {"threshold": 0.05, **MORE}, 1.05, "fail"),
]


@pytest.mark.parametrize(
    ("statistic", "criterion", "factor", "result"),
    PAIRS,
    ids=[f"{statistic.name}-{index}" for index, (statistic, *_) in enumerate(PAIRS)],
)
def test_statistics_of_pairs(
    runs: Runs, statistic: Statistic, criterion: dict[str, Any], factor: float, result: str
) -> None:
    runs.sample(STEP, baseline=BASE, packed=times(factor))
    one = judged(runs, statistic=statistic, metric=STEP, **criterion)
    assert one.result == result, one.why
    (part,) = one.parts
    assert (part.n, part.task, part.system) == (5, "net/digits", "plain")
    ours, theirs = np.array(times(factor)), np.array(BASE)
    if statistic is Statistic.p_worse:
        p = scipy_stats.ttest_rel(ours, theirs, alternative="greater").pvalue
        assert one.value == pytest.approx(p) and "one-sided paired p" in one.why and "5 pairs" in one.why
        return
    assert "90 % interval" in one.why and ("5 runs" if statistic is Statistic.mean else "5 pairs") in one.why
    samples = {
        Statistic.mean: ours,
        Statistic.times_smaller: np.log(theirs / ours),
        Statistic.relative_change: np.log(ours / theirs),
        Statistic.difference: ours - theirs,
    }
    if statistic in samples:
        sample = samples[statistic]
        interval = scipy_stats.ttest_1samp(sample, 0).confidence_interval(0.9)
        expected = np.array([sample.mean(), interval.low, interval.high])
        if statistic is Statistic.relative_change:
            expected = np.expm1(expected)
        elif statistic is Statistic.times_smaller:
            expected = np.exp(expected)
        assert (one.value, part.low, part.high) == pytest.approx(tuple(expected), rel=1e-9)


def test_a_p_beyond_what_is_computed_is_said_as_a_bound(runs: Runs) -> None:
    runs.sample(STEP, baseline=BASE, packed=times(1.05))
    one = judged(runs, statistic=Statistic.difference_in_sigma, metric=STEP, threshold=0.1, **NO_WORSE)
    assert ", p ≥0.5 for being worse than the margin allows" in one.why


def test_a_lack_of_evidence_for_being_worse_passes_nothing(runs: Runs) -> None:
    runs.sample(STEP, baseline=BASE, packed=times(1.0))
    one = judged(runs, statistic=Statistic.p_worse, metric=STEP, threshold=0.05, comparison=Is.at_least)
    assert 0.05 < (one.value or 0) < 0.95 and one.result == "inconclusive"
    assert "; a large p only shows a lack of evidence, and passes from 0.95 on" in one.why
    assert one.seeds_needed is None


def test_a_step_is_slower_by_the_metrics_direction(runs: Runs) -> None:
    runs.sample("speed/samples_per_s", baseline=BASE, packed=times(0.95))
    slower = {"statistic": Statistic.p_worse, "threshold": 0.05, "comparison": Is.at_least}
    assert judged(runs, metric="speed/samples_per_s", **slower).result == "fail"
    turned = ProtocolConfig(
        method="baseline",
        baseline=METHOD,
        criteria={"it": CriterionConfig(metric="speed/samples_per_s", **slower)},
    )
    assert judged_all(runs, turned)[1][0].result == "pass"


@pytest.mark.parametrize("comparison", [Is.within, Is.no_worse])
@pytest.mark.parametrize(("metric", "factor"), [(STEP, 0.8), ("speed/samples_per_s", 1.25)])
@pytest.mark.parametrize(
    ("statistic", "threshold"),
    [(Statistic.relative_change, 0.02), (Statistic.difference, 2.0), (Statistic.difference_in_sigma, 0.2)],
)
def test_no_margin_fails_a_method_for_being_better(
    runs: Runs, comparison: Is, metric: str, factor: float, statistic: Statistic, threshold: float
) -> None:
    runs.sample(metric, baseline=BASE, packed=times(factor))
    better = judged(runs, metric=metric, statistic=statistic, comparison=comparison, threshold=threshold)
    assert better.result == "pass" and "; not equivalent within " in better.why, better.why
    worse = ProtocolConfig(
        method="baseline",
        baseline=METHOD,
        criteria={
            "it": CriterionConfig(
                metric=metric, statistic=statistic, comparison=comparison, threshold=threshold
            )
        },
    )
    assert judged_all(runs, worse)[1][0].result == "fail"


def test_non_inferiority_says_p_interval_and_whether_it_is_within_the_margin_too(runs: Runs) -> None:
    runs.sample(
        STEP, baseline=BASE, packed=times(1.0), faster=times(0.9), unsure=[98.0, 97.0, 101.0, 96.0, 99.0]
    )
    criterion = CriterionConfig(metric=STEP, statistic=Statistic.relative_change, threshold=0.02, **NO_WORSE)

    def why(method: str) -> str:
        (one,) = judged_all(runs, ProtocolConfig(method=method, criteria={"it": criterion}))[1]
        assert one.result == "pass" and "90 % interval" in one.why, one.why
        p = scipy_stats.ttest_1samp(
            np.log(values[method] / np.array(BASE)), np.log(1.02), alternative="less"
        ).pvalue
        assert ("p <0.001" if p < 0.001 else f"p {p:.3f}") in one.why
        return one.why.partition("; ")[2]

    values = {METHOD: times(1.0), "faster": times(0.9), "unsure": [98.0, 97.0, 101.0, 96.0, 99.0]}
    assert why(METHOD) == "also equivalent within ±2.00 %"
    assert why("faster") == "not equivalent within ±2.00 %"
    assert why("unsure") == "equivalence within ±2.00 % is not shown"


def test_the_drop_of_a_score_is_better_when_it_is_less(runs: Runs) -> None:
    for seed, (val, ood) in enumerate([(0.90, 0.80), (0.92, 0.83), (0.91, 0.82)]):
        runs.finished("baseline", seed, {"val/accuracy": val, "ood/accuracy": ood})
        runs.finished(METHOD, seed, {"val/accuracy": val, "ood/accuracy": ood + 0.05 + seed / 1000})
    drop = {"metric": "ood/score", "drop_from": "val/score", "statistic": Statistic.difference, **NO_WORSE}
    assert judged(runs, threshold=0.005, **drop).result == "pass"


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("statistic", [Statistic.relative_change, Statistic.difference, Statistic.mean])
def test_few_pairs_of_a_sampled_metric_prove_nothing(
    runs: Runs, n: int, same: bool, statistic: Statistic
) -> None:
    runs.sample(STEP, baseline=BASE[:n], packed=BASE[:n] if same else times(5.0)[:n])
    one = judged(runs, metric=STEP, statistic=statistic, threshold=1e9)
    assert (one.result, one.parts[0].n) == ("inconclusive", n)
    assert one.why.endswith("at least 3 are needed")


def test_a_counted_metric_is_judged_by_one_run(runs: Runs) -> None:
    runs.sample("memory/mask_bytes_per_element", baseline=[1.0], packed=[0.125])
    smaller = {"statistic": Statistic.times_smaller, "metric": "memory/mask_bytes_per_element", **MORE}
    one = judged(runs, threshold=7.5, **smaller)
    assert (one.result, one.value, one.why) == ("pass", 8.0, "8x, an exact count in one pair")
    assert judged(runs, threshold=8.5, **smaller).result == "fail"
    assert judged(runs, threshold=8.0, **smaller).result == "pass"  # whatever the logarithm rounds
    against = judged(runs, threshold=15.0, against=2.0, **smaller)
    assert (against.result, against.value, against.why) == ("pass", 16.0, "16x, an exact count in one run")


def test_a_counted_change_of_exactly_the_threshold_is_enough(runs: Runs) -> None:
    runs.sample("memory/saved_bytes", baseline=[1000.0], packed=[900.0])
    change = {"statistic": Statistic.relative_change, "metric": "memory/saved_bytes"}
    one = judged(runs, threshold=-0.1, **change)
    assert (one.result, one.value, one.why) == ("pass", -0.1, "-10.00 %, an exact count in one pair")
    assert judged(runs, threshold=-0.1000001, **change).result == "fail"


@pytest.mark.parametrize("statistic", [Statistic.relative_change, Statistic.difference_in_sigma])
def test_a_method_is_not_compared_with_itself(runs: Runs, statistic: Statistic) -> None:
    runs.sample(STEP, baseline=BASE, packed=BASE)
    claim = CriterionConfig(metric=STEP, statistic=statistic, threshold=0.2, **NO_WORSE)
    protocol = ProtocolConfig(method=METHOD, baseline=METHOD, criteria={"it": claim})
    (one,) = judged_all(runs, protocol)[1]
    assert one.result == "not measured" and one.why.startswith("method and baseline are both packed")


def test_against_needs_no_baseline(runs: Runs) -> None:
    runs.sample(STEP, packed=times(1.0))
    criterion = {"metric": STEP, "statistic": Statistic.relative_change, "threshold": -0.4}
    assert judged(runs, against=200.0, **criterion).result == "pass"
    one = judged(runs, **criterion)
    assert (one.result, one.why) == (
        "not measured",
        "baseline=baseline: no run here is of it, they are of 'packed'; run baseline",
    )
    runs.finished("baseline", 0, {"test/loss": 1.0})
    assert judged(runs, **criterion).why == f"no run of the baseline recorded a finite {STEP}"


def test_not_measured_says_what_lacks(runs: Runs) -> None:
    criterion = {"statistic": Statistic.difference, "threshold": 1.0}
    runs.finished("baseline", 0, {STEP: 1.0})
    absent = "method=packed: no run here is of it, they are of 'baseline'; run packed"
    assert judged(runs, metric=STEP, **criterion).why == absent
    runs.finished(METHOD, 0, {"memory/saved_bytes": 1.0})
    assert judged(runs, metric=STEP, **criterion).why == f"no run of the method recorded a finite {STEP}"
    runs.finished(METHOD, 1, {STEP: 1.0})
    assert (
        judged(runs, metric=STEP, **criterion).why == "no seed has finished runs of both method and baseline"
    )
    assert judged(runs, metric="score", **criterion).why == "no run records score"
    one = judged(runs, metric=STEP, tasks=["bert*/*"], **criterion)
    assert (one.result, one.why, one.parts) == (
        "not measured",
        "no finished run of a task that matches bert*/*",
        [],
    )


@pytest.mark.parametrize("statistic", [Statistic.relative_change, Statistic.times_smaller])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_ratios_of_zero_and_of_negative_numbers_are_not_measured(
    runs: Runs, statistic: Statistic, value: float
) -> None:
    runs.sample(STEP, baseline=[1.0, value, 1.0], packed=[1.0, 1.0, 1.0])
    one = judged(runs, metric=STEP, statistic=statistic)
    assert (one.result, one.why) == ("not measured", "a ratio needs numbers above zero")


@pytest.mark.parametrize(("score", "n"), [(0.9, 3), (0.96111, 7)])  # the mean of seven is not quite 0.96111
def test_a_baseline_that_does_not_vary_has_no_sigma(runs: Runs, score: float, n: int) -> None:
    better = [score + step / 100 for step in range(n)]
    runs.sample("test/accuracy", baseline=[score] * n, packed=better, same=[score] * n)
    quality = {"metric": "score", "statistic": Statistic.difference_in_sigma, "threshold": 0.2, **WITHIN}
    one = judged(runs, **quality)
    assert (one.result, one.why) == ("not measured", "the baseline does not vary over its seeds")
    same = ProtocolConfig(method="same", criteria={"it": CriterionConfig(**quality)})
    assert judged_all(runs, same)[1][0].result == "pass"


def test_the_drop_from_one_split_to_another_is_paired_by_seed(runs: Runs) -> None:
    for seed, (val, ood) in enumerate([(0.90, 0.80), (0.92, 0.83), (0.91, 0.82)]):
        runs.finished("baseline", seed, {"val/accuracy": val, "ood/accuracy": ood})
        runs.finished(METHOD, seed, {"val/accuracy": val + 0.1, "ood/accuracy": ood + 0.1 - seed / 1000})
    drop = {"metric": "ood/score", "drop_from": "val/score", "statistic": Statistic.difference}
    one = judged(runs, threshold=0.005, **drop)
    assert (one.result, one.value) == ("pass", pytest.approx(0.001))  # drops 0, 1 and 2 thousandths more
    assert judged(runs, threshold=-0.005, **drop).result == "fail"
    lacking = judged(runs, metric="ood/score", drop_from="test/score", statistic=Statistic.difference)
    assert lacking.why == "no run records test/score"


def two_tasks(runs: Runs, second: float | None) -> Judged:
    for seed, (base, ours) in enumerate(zip(BASE, times(0.8), strict=True)):
        runs.finished("baseline", seed, {STEP: base}, task="net/digits")
        runs.finished(METHOD, seed, {STEP: ours}, task="net/digits")
        runs.finished("baseline", seed, {STEP: base}, task="other/words")
        if second is not None:
            runs.finished(METHOD, seed, {STEP: times(second)[seed]}, task="other/words")
    return judged(runs, metric=STEP, statistic=Statistic.relative_change, threshold=-0.1)


@pytest.mark.parametrize(
    ("second", "result", "counts"),
    [
        (0.7, "pass", "2 pass"),
        (0.8, "pass", "2 pass"),
        (0.85, "pass", "2 pass"),
        (0.9, "inconclusive", "1 not settled, 1 pass"),
        (0.95, "fail", "1 fail, 1 pass"),
        (None, "inconclusive", "1 not measured, 1 pass"),
    ],
)
def test_the_worst_task_decides(runs: Runs, second: float | None, result: str, counts: str) -> None:
    one = two_tasks(runs, second)
    assert (one.result, len(one.parts)) == (result, 2)
    where = "net/digits" if second in (0.7, 0.8) else "other/words"  # where two pass, the nearer to failing
    assert one.why.startswith(f"{where}: ") and one.why.endswith(f"(of 2 tasks: {counts})")
    limited = judged(runs, metric=STEP, statistic=Statistic.relative_change, threshold=-0.1, tasks=["net/*"])
    assert (limited.result, len(limited.parts)) == ("pass", 1)


def test_a_task_whose_every_run_failed_leaves_the_rest_unproved(runs: Runs) -> None:
    runs.sample(STEP, baseline=BASE, packed=times(0.8))
    content = [
        {"run_id": f"w{seed}", "task": "net/words", "system": "plain", "variant": v, "seed": seed}
        for seed, v in enumerate(("baseline", METHOD))
    ]
    criterion = {"metric": STEP, "statistic": Statistic.relative_change, "threshold": -0.1}
    assert judged(runs, **criterion).result == "pass"
    (runs.folder / "plan.json").write_text(json.dumps(content))
    one = judged(runs, **criterion)
    assert one.result == "inconclusive" and one.why.startswith("net/words: no run finished")


def test_systems_and_arms_are_compared_along_their_axis(runs: Runs) -> None:
    for seed, value in enumerate(BASE):
        for variant, system, factor in (("base", "zero2", 1.0), ("packed", "zero2-flash", 0.8)):
            runs.finished(variant, seed, {STEP: value * factor + seed / 10}, system=system)
        runs.finished("base", seed, {STEP: value * 0.7 + seed / 10}, system="flash")
    less = {
        "it": CriterionConfig(metric=STEP, statistic=Statistic.relative_change, threshold=-0.1),
    }
    arms = ProtocolConfig(
        axis=ComparedLabel.arm, baseline="base-zero2", method="packed-zero2-flash", criteria=less
    )
    (one,) = judged_all(runs, arms)[1]
    assert (one.result, one.parts[0].system, one.parts[0].n) == ("pass", "its own", 5)
    systems = ProtocolConfig(axis=ComparedLabel.system, baseline="zero2", method="flash", criteria=less)
    experiment, (one,) = judged_all(runs, systems)
    of_base = next(part for part in one.parts if part.system == "with base")
    assert (of_base.result, of_base.n) == ("pass", 5)
    assert of_base.value == pytest.approx(-0.3, abs=0.01)
    assert {member.labels.variant for member in experiment.finished} == {"zero2", "flash", "zero2-flash"}


# --- the verdict on all


def test_the_answer_is_that_of_the_worst_criterion(runs: Runs) -> None:
    runs.sample(STEP, baseline=BASE, packed=times(1.0))
    claims = {
        "yes": CriterionConfig(metric=STEP, threshold=200.0),
        "no": CriterionConfig(metric=STEP, threshold=10.0),
        "open": CriterionConfig(metric=STEP, threshold=100.1),
        "blank": CriterionConfig(metric="score", threshold=1.0),
    }

    def verdict(*names: str) -> tuple[str, str]:
        protocol = ProtocolConfig(method=METHOD, criteria={name: claims[name] for name in names})
        return answer(judged_all(runs, protocol)[1], METHOD)

    differences = np.array(times(1.0)) - 100.1
    std, freedom = differences.std(ddof=1), len(differences) - 1
    quantile = scipy_stats.nct.ppf(0.8, freedom, scipy_stats.norm.ppf(0.95))
    needed = math.ceil((quantile * std / differences.mean()) ** 2) + 1
    assert verdict("yes") == ("pass", "Are all claims met? Yes: packed meets its 1.")
    assert verdict("yes", "no", "open", "blank") == (
        "fail",
        f"Are all claims met? No: packed misses 1 of 4 (no); 1 needs more seeds (open: about {needed} seeds); "
        "1 is not measured (blank); packed meets 1.",
    )
    assert verdict("yes", "open") == (
        "inconclusive",
        f"Are all claims met? Not settled: 1 needs more seeds (open: about {needed} seeds); packed meets 1 of 2.",
    )
    assert verdict("yes", "blank") == (
        "inconclusive",
        "Are all claims met? Not settled: 1 is not measured (blank); packed meets 1 of 2.",
    )
    protocol = ProtocolConfig(method=METHOD, criteria={"odd": claims["yes"], "yes": claims["yes"]})
    odd, met = judged_all(runs, protocol)[1]
    assert answer([replace(odd, result="inconclusive"), met], METHOD) == (
        "inconclusive",
        "Are all claims met? Not settled: 1 is open, and its line says why (odd); packed meets 1 of 2.",
    )
    assert verdict("blank") == (
        "not measured",
        "Are all claims met? Not measured: no finished run recorded what is needed for blank.",
    )
    assert verdict() == ("not measured", "No success criteria were written down for this experiment.")
