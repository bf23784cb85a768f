"""The criterion of divergence: every run of the method has to end with finite losses and scores."""

from typing import Any

import pytest

from judged_runs import METHOD, judged
from pmexp.protocol import Statistic
from run_folders import Runs

DIVERGED: dict[str, Any] = {"statistic": Statistic.diverged, "threshold": 0}


def test_no_run_diverged(runs: Runs) -> None:
    runs.sample("test/loss", baseline=[1.0, None, 1.0], packed=[1.0, 1.1, 1.2])
    one = judged(runs, **DIVERGED)
    assert (one.result, one.value) == ("pass", 0.0)
    assert one.why == "3 of 3 runs finished, all with finite losses and scores"


def test_one_diverged_seed_fails(runs: Runs) -> None:
    runs.sample("test/loss", baseline=[1.0, 1.0, 1.0], packed=[1.0, None, 1.2])
    one = judged(runs, **DIVERGED)
    assert (one.result, one.value) == ("fail", 1.0)
    assert "seed 1 with a loss or score that is not finite" in one.why
    assert judged(runs, statistic=Statistic.diverged, threshold=1).result == "pass"


def test_a_failed_run_may_have_diverged(runs: Runs) -> None:
    runs.sample("test/loss", baseline=[1.0, 1.0, 1.0], packed=[1.0, 1.1])
    runs.unfinished(METHOD, 2, failure={"status": "failed", "error": "ValueError: x"})
    one = judged(runs, **DIVERGED)
    assert (one.result, one.why) == (
        "inconclusive",
        "2 of 3 runs finished, all with finite losses and scores; seed 2: failed",
    )


@pytest.mark.parametrize(("most", "result"), [(0, "fail"), (1, "inconclusive"), (2, "pass")])
def test_some_divergence_that_is_allowed_is_not_used_up_by_what_is_lost(
    runs: Runs, most: int, result: str
) -> None:
    runs.sample("test/loss", baseline=[1.0, 1.0, 1.0], packed=[1.0, None])
    runs.unfinished(METHOD, 2, failure={"status": "failed", "error": "ValueError: x"})
    one = judged(runs, statistic=Statistic.diverged, threshold=most)
    assert (one.result, one.value) == (result, 1.0)
    assert one.why.endswith("seed 1 with a loss or score that is not finite; seed 2: failed")


def test_without_a_run_of_the_method_divergence_is_not_measured(runs: Runs) -> None:
    runs.sample("test/loss", baseline=[1.0])
    assert judged(runs, **DIVERGED).why.startswith("method=packed: no run here is of it")
    runs.unfinished(METHOD, 0, failure={"status": "failed", "error": "ValueError: x"})
    assert judged(runs, **DIVERGED).why == "no run of the method finished"
