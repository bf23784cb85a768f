"""A run that waited for its data has the speed of its loader: it passes no claim on throughput, and fails none."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from pmexp_analysis.criteria import Judged, judge
from run_folders import Runs

SAMPLES, SHARE, LOSS = "speed/samples_per_s", "speed/data_wait_share", "test/loss"


def judged(runs: Runs, share: dict[str, float], faster: float, metric: str = SAMPLES) -> Judged:
    claim: dict[str, Any] = {
        "metric": metric, "statistic": "relative_change", "comparison": "no_worse", "threshold": 0.02,
    }  # fmt: skip
    for seed in range(4):
        for variant in ("baseline", "pm-drop"):
            value = (100 + seed) * (faster + 0.001 * seed if variant == "pm-drop" else 1)
            finals = {metric: value} | ({SHARE: share[variant]} if variant in share else {})
            runs.finished(variant, seed, finals, protocol={"method": "pm-drop", "criteria": {"fast": claim}})
    (one,) = judge(runs.experiment(), [])
    return one


@pytest.mark.parametrize("faster", [1.2, 0.8])
@pytest.mark.parametrize("variant", ["baseline", "pm-drop"])
def test_throughput_of_a_run_that_waited_is_not_settled(variant: str, faster: float, runs: Runs) -> None:
    one = judged(runs, {variant: 0.035}, faster)
    assert one.result == "inconclusive" and one.seeds_needed is None
    assert one.why.startswith(f"not settled: waited for data ({variant} seed 0 3.5%, {variant} seed 1 3.5%")
    assert "and 1 more of the steps' time); " in one.why and "90 % interval" in one.why


@pytest.mark.parametrize("share", [{}, {"baseline": 0.02, "pm-drop": 0.0}])
def test_throughput_counts_where_nobody_waited_for_more_than_a_fiftieth(
    share: dict[str, float], runs: Runs
) -> None:
    one = judged(runs, share, 1.2)
    assert one.result == "pass" and "waited" not in one.why


def test_what_a_loader_cannot_change_counts(runs: Runs) -> None:
    assert judged(runs, {"pm-drop": 0.5}, 0.8, LOSS).result == "pass"


def judged_growth(runs: Runs, share: dict[tuple[str, int], float], metric: str = "speed/step_ms") -> Judged:
    """The saving of the metric is the square of the length, at three lengths by two seeds."""
    claim = {"metric": metric, "statistic": "growth_exponent", "over": "dataset.max_length",
             "comparison": "at_least", "threshold": 1.5}  # fmt: skip
    for length, seed in itertools.product((8, 16, 32), (0, 1)):
        for variant, left in (("baseline", 1.0), ("pm-drop", 0.5)):
            finals = {metric: left * length**2} | {SHARE: share.get((variant, length), 0.0)}
            settings = {"dataset.max_length": length}
            protocol = {"method": "pm-drop", "criteria": {"grows": claim}}
            runs.finished(variant, seed, finals, settings=settings, protocol=protocol)
    (one,) = judge(runs.experiment(), [])
    return one


@pytest.mark.parametrize("variant", ["baseline", "pm-drop"])
def test_growth_of_a_time_is_not_settled_where_a_run_waited(variant: str, runs: Runs) -> None:
    one = judged_growth(runs, {(variant, 16): 0.035})
    assert one.result == "inconclusive"
    said = ", ".join(f"{variant} seed {seed} at dataset.max_length=16 3.5%" for seed in (0, 1))
    assert one.why.startswith(
        f"not settled: waited for data ({said} of the steps' time); the saving grows as "
    )


def test_growth_counts_where_nobody_waited_and_where_waiting_changes_nothing(runs: Runs) -> None:
    assert judged_growth(runs, {}).result == "pass"
    other = replace(runs, root=runs.root / "other")
    assert judged_growth(other, {("pm-drop", 16): 0.5}, "memory/saved_bytes").result == "pass"
    third = replace(runs, root=runs.root / "third")
    assert judged_growth(third, {("2bit", 16): 0.5}).result == "pass"  # none of the two sides
