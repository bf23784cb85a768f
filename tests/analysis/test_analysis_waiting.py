"""A run that waited for its data has the speed of its loader: it passes no claim on throughput, and fails none."""

from typing import Any

import pytest

from pmexp_analysis.criteria import Judged, judge
from pmexp_analysis.sources.folders import load_runs
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
    (one,) = judge(load_runs(runs.root, "demo"), [])
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
