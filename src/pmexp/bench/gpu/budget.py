"""Counts the time that a call may take, and shares it out."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_TRIES = 2  # a piece of work may take this many times what it took before


class Budget:
    """Counts seconds from `start`, by `clock`."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, start: float | None = None
    ) -> None:
        self._clock = clock
        self._end = (clock() if start is None else start) + seconds

    @property
    def left(self) -> float:
        return self._end - self._clock()

    def part(self, of: int) -> "Budget":
        """Returns an equal part of what is left, where that many pieces of work are still to be done."""
        return Budget(self.left / of, self._clock)

    def allows(self, seconds: float) -> bool:
        """Whether work that took `seconds` when it was last done can be done once more."""
        return self.left >= _TRIES * seconds


class TimeIsUp(BaseException):
    """Is raised in the middle of whatever runs, where no `except Exception` of a library may keep it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp after `seconds`, for what no budget foresaw. In the main thread alone."""

    def end(*_: Any) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))  # 0 would be none
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
