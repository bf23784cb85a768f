"""Planted faults: what a report must not let pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pmexp.command.compose import compose
from pmexp_analysis.criteria import Judged, judge
from pmexp_analysis.numbers.compare import Comparison, comparisons
from run_folders import Runs

THROUGHPUT, STEP, SCORE = "speed/samples_per_s", "speed/step_ms", "test/accuracy"
PROTOCOL: dict[str, Any] = compose([]).to_dict()["protocol"]  # the default of an experiment
ComparedAndJudged = tuple[dict[str, Comparison], dict[str, Judged]]


def planted(
    runs: Runs,
    slower: float = 0.0,
    noise: float = 0.005,
    seeds: int = 5,
    lower: float = 0.0,
    lost: Sequence[int] = (),
    tensors: bool = True,
) -> ComparedAndJudged:
    """The default protocol on runs whose method is slower by a fraction and scores lower by so many sigmas, with
    seeds of it that diverged; everything else is as it should be. Without `tensors` they are runs of a version
    that did not count them."""
    random = np.random.default_rng(seeds)
    sigma = 0.01
    scores = 0.9 + sigma * np.array([-1.2, 0.7, 1.1, -0.9, 0.3])
    for seed in range(seeds):
        for variant in ("baseline", "pm-drop"):
            ours = variant == "pm-drop"
            rate = 500 * (1 - slower * ours) * np.exp(random.normal(0, noise))
            finals = {
                THROUGHPUT: rate,
                STEP: 64e3 / rate,
                SCORE: scores[seed] - lower * sigma * ours * (1 + seed / 100),  # equal drops show no spread
                "train/loss": None if ours and seed in lost else 0.5,
                "memory/mask_bytes_per_element": 0.125 if ours else 1.0,
                "memory/peak_bytes": 1000.0 + seed,  # that of the process: no criterion is judged by it
                **({"memory/peak_tensor_bytes": 80.0 if ours else 100.0} if tensors else {}),
                "check/gradient_error": 1e-7,
            }
            runs.finished(variant, seed, finals, protocol=PROTOCOL, outcome={"weights_sha256": f"{seed}"})
    masks, outcome = {"variant.rng": "torch"}, {"weights_sha256": "0"}
    runs.finished("pm-drop-same-masks", 0, {}, protocol=PROTOCOL, settings=masks, outcome=outcome)
    return found(runs)


def found(runs: Runs) -> ComparedAndJudged:
    experiment = runs.experiment()
    made = comparisons(experiment.values, experiment.protocol, experiment.counted)
    return {one.metric: one for one in made}, {one.name: one for one in judge(experiment, [])}


def test_without_a_fault_everything_passes(runs: Runs) -> None:
    by_metric, criteria = planted(runs)
    assert {name: one.result for name, one in criteria.items()} == dict.fromkeys(PROTOCOL["criteria"], "pass")
    assert by_metric[THROUGHPUT].verdict == "equivalent"
    assert by_metric[SCORE].verdict == by_metric["train/loss"].verdict == "equal"


def test_memory_of_older_runs_is_not_measured(runs: Runs) -> None:
    _, criteria = planted(runs, tensors=False)
    others = criteria.keys() - {"memory-small"}
    assert criteria["memory-small"].result == "not measured"
    assert {criteria[name].result for name in others} == {"pass"}


def test_three_percent_slower_is_worse_and_fails(runs: Runs) -> None:
    by_metric, criteria = planted(runs, slower=0.03)
    assert by_metric[THROUGHPUT].verdict == by_metric[STEP].verdict == "worse"
    assert criteria["throughput"].result == criteria["step-time"].result == "fail"
    assert criteria["throughput"].value == pytest.approx(-0.03, abs=0.005)
    assert criteria["quality"].result == "pass"


@pytest.mark.parametrize("noise", [0.005, 0.0])
def test_two_seeds_are_inconclusive_however_clear(runs: Runs, noise: float) -> None:
    by_metric, criteria = planted(runs, slower=0.03, noise=noise, seeds=2)
    assert by_metric[THROUGHPUT].verdict == by_metric[STEP].verdict == "inconclusive"
    assert criteria["throughput"].result == criteria["step-time"].result == "inconclusive"
    assert criteria["quality"].result == "inconclusive"  # identical scores, of two seeds
    assert criteria["mask-compression"].result == "pass"  # counted


def test_one_percent_slower_is_inside_the_margin_and_said(runs: Runs) -> None:
    by_metric, criteria = planted(runs, slower=0.01, noise=0.001)
    assert by_metric[THROUGHPUT].verdict == "equivalent"
    assert by_metric[THROUGHPUT].note.startswith("a significant difference, but within the margin")
    assert criteria["throughput"].result == criteria["step-time"].result == "pass"


def test_twenty_percent_faster_passes_and_is_said(runs: Runs) -> None:
    by_metric, criteria = planted(runs, slower=-0.2)
    assert by_metric[THROUGHPUT].verdict == "better"
    assert criteria["throughput"].result == criteria["step-time"].result == "pass"
    assert criteria["throughput"].why.endswith("; not equivalent within ±2.00 %")


@pytest.mark.parametrize("lower", [0.2, 0.25, 1.0])
def test_a_drop_of_the_score_is_not_passed(runs: Runs, lower: float) -> None:
    by_metric, criteria = planted(runs, lower=lower)
    assert criteria["quality"].result in ("fail", "inconclusive")
    assert by_metric[SCORE].verdict == "worse"  # nearly the same in every seed
    if lower == 1.0:
        assert criteria["quality"].result == "fail"


def test_a_diverged_seed_fails(runs: Runs) -> None:
    by_metric, criteria = planted(runs, lost=[3])
    assert criteria["no-divergence"].result == "fail" and "seed 3" in criteria["no-divergence"].why
    assert by_metric["train/loss"].missing_seeds == {"variant": [3], "baseline": []}


def test_a_failed_run_leaves_divergence_open(runs: Runs) -> None:
    planted(runs)
    runs.unfinished("pm-drop", 5, failure={"status": "failed", "error": "RuntimeError: CUDA error"})
    assert found(runs)[1]["no-divergence"].result == "inconclusive"


def test_a_wrong_gradient_and_large_masks_fail(runs: Runs) -> None:
    planted(runs)
    runs.finished(
        "pm-drop", 5, {"check/gradient_error": 1e-3, "memory/mask_bytes_per_element": 1.0}, protocol=PROTOCOL
    )
    criteria = found(runs)[1]
    assert criteria["gradient-check"].result != "pass" and criteria["mask-compression"].result != "pass"
