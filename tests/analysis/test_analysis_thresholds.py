"""Values at the threshold meet it, and a count has to meet it in each run."""

import math
from typing import Any

import pytest

from judged_runs import MORE, STEP, judged
from pmexp.protocol import Bound as Is
from pmexp.protocol import Statistic
from run_folders import Runs

GRADIENT: dict[str, Any] = {"metric": "check/gradient_error", "threshold": 1e-5}
MASKS: dict[str, Any] = {"metric": "memory/mask_bytes_per_element", "against": 1.0, "threshold": 7.5}


@pytest.mark.parametrize(
    ("told", "usual", "last", "result"),
    [
        (GRADIENT, 0.0, 3e-5, "inconclusive"),
        (GRADIENT, 0.0, 9e-6, "pass"),
        (MASKS | {"statistic": Statistic.times_smaller, **MORE}, 0.125, 0.15, "inconclusive"),
        (MASKS | {"statistic": Statistic.times_smaller, **MORE}, 0.125, 0.13, "pass"),
    ],
)
def test_no_count_is_met_on_average(
    runs: Runs, told: dict[str, Any], usual: float, last: float, result: str
) -> None:
    """One run of thirty misses the claim, and the interval of the mean does not show it."""
    runs.sample(told["metric"], baseline=[usual] * 30, packed=[usual] * 29 + [last])
    one = judged(runs, **told)
    assert one.result == result
    assert ("but seed 29 alone misses it" in one.why) == (result == "inconclusive")


def test_the_threshold_itself_is_allowed(runs: Runs) -> None:
    runs.sample("memory/saved_bytes", baseline=[1000.0], packed=[900.0])
    for comparison, threshold in ((Is.at_most, 900.0), (Is.at_least, 900.0)):
        one = judged(runs, metric="memory/saved_bytes", threshold=threshold, comparison=comparison)
        assert one.result == "pass"
    over = judged(runs, metric="memory/saved_bytes", threshold=math.nextafter(900.0, 0.0))
    assert over.result == "fail"


@pytest.mark.parametrize(
    ("told", "baseline", "packed"),
    [
        ({"statistic": Statistic.mean, "threshold": 0.1}, 0.0, 0.1),  # whose mean over three is more
        ({"statistic": Statistic.difference, "threshold": -0.2}, 0.3, 0.1),
        ({"statistic": Statistic.difference, "threshold": 0.2, "comparison": Is.within}, 0.1, 0.3),
    ],
)
def test_the_threshold_is_allowed_whatever_is_rounded_on_the_way(
    runs: Runs, told: dict[str, Any], baseline: float, packed: float
) -> None:
    runs.sample(STEP, baseline=[baseline] * 3, packed=[packed] * 3)
    assert judged(runs, metric=STEP, **told).result == "pass"
    less = {"threshold": told["threshold"] - 1e-9}
    assert judged(runs, metric=STEP, **(told | less)).result == "fail"
