"""Shows how far a run has come: a line at the end of a terminal, where there is none a log line a minute."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

log = logging.getLogger(__name__)
_DRAW_SECONDS, _LOG_SECONDS = 0.5, 60.0


class ProgressLine:
    """Says step, last logged loss, speed, peak memory and the time left. It asks the device for nothing: a
    loss is one that the loop has logged.

    The speed is that of the steps since the last line, without evaluations and checkpoints. The time left
    goes by all steps but the first, which may compile, and by the evaluations that are to come; how long one
    takes is known after the first. evaluations_by: says how many are due by the end of a step.
    """

    def __init__(
        self,
        step: int,
        last_step: int,
        batch_size: int,
        peak_bytes: Callable[[], int],
        evaluations_by: Callable[[int], int],
    ) -> None:
        self._last_step, self._batch_size = last_step, batch_size
        self._peak_bytes, self._loss = peak_bytes, ""
        self._evaluations_by, self._evaluations_before = evaluations_by, evaluations_by(step)
        self._live: Any = None
        self._counted_from: int | None = None  # the first step of this try, which the time left leaves out
        self._in_steps = 0.0  # seconds that the steps since then took
        self._between = 0.0  # and all between them
        self._said_at, self._since_said = step, 0.0
        self._now = time.monotonic()
        self._due = self._now + _LOG_SECONDS

    @contextmanager
    def shown(self, is_first: bool) -> Iterator[None]:
        """Draws on a terminal for as long as the block lasts; what is printed meanwhile stands above. The
        first of several ranks says all."""
        if not is_first:
            self._due = math.inf
        elif sys.stderr.isatty():
            from rich.console import Console  # which a run without a terminal does without
            from rich.live import Live

            console = Console(stderr=True, highlight=False, soft_wrap=True)
            # A thread that draws would take the interpreter from the step under way.
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty()
            )
            self._live.start()
            self._due = self._now
        try:
            yield
        finally:
            if self._live:
                with suppress(OSError):  # the terminal is gone
                    self._live.stop()
            self._live = None

    def stepped(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
        """Notes a step, which took so long, and says so where it is time to. Steps are timed: it is called
        between them."""
        if "train/loss" in metrics:
            self._loss = f"loss {metrics['train/loss']:.4g}  "
        now = time.monotonic()
        self._since_said += seconds
        if self._counted_from is None:
            self._counted_from = step
        else:
            self._in_steps += seconds
            self._between += max(0.0, now - self._now - seconds)
        self._now = now
        # What is said of an evaluation stands above this line, which then must not be of an earlier step.
        if now < self._due and (self._live is None or "val/loss" not in metrics):
            return
        text = self._text(step)
        self._said_at, self._since_said = step, 0.0
        if self._live is None:
            self._due = now + _LOG_SECONDS
            log.info("%s", text)
        else:
            self._due = now + _DRAW_SECONDS
            self._draw(text)

    def _text(self, step: int) -> str:
        speed = self._batch_size * (step - self._said_at) / max(self._since_said, 1e-9)
        said = f"step {step}/{self._last_step}  {self._loss}{speed:,.0f} samples/s"
        said = f"{said}  {self._peak_bytes() / 2**20:,.0f} MiB"
        left = self._seconds_left(step)
        return said if left is None else f"{said}  {timedelta(seconds=round(left))} left"

    def _seconds_left(self, step: int) -> float | None:
        """Returns None after the first step alone."""
        taken = step - (step if self._counted_from is None else self._counted_from)
        if not taken:
            return None
        evaluated = self._evaluations_by(step)
        left = (self._last_step - step) * self._in_steps / taken
        if done := evaluated - self._evaluations_before:
            left += (self._evaluations_by(self._last_step) - evaluated) * self._between / done
        return left

    def _draw(self, text: str) -> None:
        from rich.text import Text

        try:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        except OSError:  # the terminal is gone, and the run goes on
            self._due = math.inf
