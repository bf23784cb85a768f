"""Time that is shared out, and ends."""

import time

import pytest

from pmexp.bench.gpu.budget import Budget, TimeIsUp, time_limit


class Clock:
    """Time that passes where a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_budget_is_shared_out_and_ends() -> None:
    clock = Clock()
    budget = Budget(100, clock)
    assert budget.part(4).left == 25 and budget.allows(50) and not budget.allows(50.1)
    clock.now = 60
    assert budget.left == 40 and budget.part(4).left == 10
    assert Budget(100, clock, start=0).left == 40


@pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0])
def test_what_takes_too_long_is_broken_off(seconds: float) -> None:
    """It is so where the time was over before, too: an alarm in 0 s would be none."""
    with pytest.raises(TimeIsUp), time_limit(seconds):
        time.sleep(10)
