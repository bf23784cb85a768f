"""Throughput says a step's time in another unit: the two are one piece of evidence and count once."""

from collections.abc import Sequence
from typing import Any

import pytest

from pmexp.protocol import Family, ProtocolConfig
from pmexp_analysis.criteria import Judged, answer
from pmexp_analysis.numbers.compare import Comparison, comparisons
from run_folders import Runs

STEP, SAMPLES, TOKENS, OTHER = "speed/step_ms", "speed/samples_per_s", "speed/tokens_per_s", "speed/epoch_s"
SLOWER = (1.0, 1.5, 1.25, 2.0)


def criterion(metric: str, threshold: float = 0.02) -> dict[str, Any]:
    return {
        "metric": metric,
        "statistic": "relative_change",
        "comparison": "no_worse",
        "threshold": threshold,
    }


def write(runs: Runs, metrics: Sequence[str], criteria: dict[str, Any] | None = None) -> None:
    """Four seeds; a step of the method takes a tenth longer, more or less."""
    for seed, more in enumerate(SLOWER):
        for variant in ("baseline", "pm-drop"):
            ms = 10.0 + seed + more * (variant == "pm-drop")
            finals = {STEP: ms, SAMPLES: 8e3 / ms, TOKENS: 64e3 / ms, OTHER: ms + seed * more}
            runs.finished(
                variant,
                seed,
                {metric: finals[metric] for metric in metrics},
                protocol={"method": "pm-drop", "criteria": criteria or {}},
            )


def compared(runs: Runs, family: Family) -> dict[str, Comparison]:
    experiment = runs.experiment()
    return {one.metric: one for one in comparisons(experiment.values, ProtocolConfig(family=family))}


@pytest.mark.parametrize("family", Family)
def test_holm_counts_a_steps_time_once_whatever_its_units(runs: Runs, family: Family) -> None:
    write(runs, [STEP, SAMPLES, TOKENS, OTHER])
    by_metric = compared(runs, family)
    step, other = by_metric[STEP], by_metric[OTHER]
    assert step.paired_p is not None and other.paired_p is not None and other.holm_p is not None
    tests = 1 if family is Family.metric else 2
    assert step.holm_p == pytest.approx(tests * step.paired_p)
    for metric in (SAMPLES, TOKENS):
        assert by_metric[metric].holm_p == step.holm_p and by_metric[metric].verdict == "worse"
        assert "counted once" in by_metric[metric].note and "step time" in by_metric[metric].note
    assert not step.note and not other.note


def test_throughput_without_a_steps_time_is_evidence_of_its_own(runs: Runs) -> None:
    write(runs, [SAMPLES])
    one = compared(runs, Family.experiment)[SAMPLES]
    assert one.holm_p == one.paired_p and not one.note


def test_the_verdict_counts_two_claims_on_one_measurement_once(runs: Runs) -> None:
    criteria = {"throughput": criterion(SAMPLES), "step-time": criterion(STEP), "own": criterion(OTHER)}
    write(runs, [STEP, SAMPLES, OTHER], criteria)
    report = runs.content()
    first, second, _ = report.criteria
    assert report.sentence.startswith(
        "Are all claims met? No: pm-drop misses 2 of 2 (throughput = step-time, own)"
    )
    assert second.one_measurement_with == "throughput" and not first.one_measurement_with
    assert "one measurement with throughput, counted once" in second.why


def test_other_claims_on_a_measurement_stay_apart(runs: Runs) -> None:
    criteria = {"throughput": criterion(SAMPLES), "step-time": criterion(STEP, threshold=0.5)}
    write(runs, [STEP, SAMPLES], criteria)
    assert "misses 1 of 2 (throughput)" in runs.content().sentence


def test_of_two_claims_on_one_measurement_the_worse_counts() -> None:
    def claim(name: str, result: Any, same: str = "") -> Judged:
        told = {"metric": STEP, "statistic": "relative_change", "comparison": "no_worse", "threshold": 0.02}
        return Judged(
            name, name, result=result, value=None, why="", parts=[], one_measurement_with=same, **told
        )

    assert answer([claim("a", "pass"), claim("b", "fail", "a")], "it")[1] == (
        "Are all claims met? No: it misses 1 of 1 (a = b)."
    )
    assert answer([claim("a", "pass"), claim("b", "pass", "a")], "it")[1] == (
        "Are all claims met? Yes: it meets its 1."
    )
