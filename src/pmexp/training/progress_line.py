"""Shows how far a run has come: a line at the end of a terminal, where there is none a log line a minute."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

log = logging.getLogger(__name__)
_DRAW_SECONDS, _LOG_SECONDS = 0.5, 60.0


class ProgressLine:
    """Says step, last logged loss, speed, peak memory and the time left. It asks the device for nothing: a
    loss is one that the loop has logged."""

    def __init__(self, step: int, last_step: int, batch_size: int, peak_bytes: Callable[[], int]) -> None:
        self._first, self._last_step, self._batch_size = step, last_step, batch_size
        self._peak_bytes, self._loss = peak_bytes, ""
        self._live: Any = None
        self._began = time.monotonic()
        self._said = (step, self._began)
        self._due = self._began + _LOG_SECONDS

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
            self._due = self._began
        try:
            with self._live or nullcontext():
                yield
        finally:
            self._live = None

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        """Notes a step, and says so where it is time to. Steps are timed: it is called between them."""
        if "train/loss" in metrics:
            self._loss = f"loss {metrics['train/loss']:.4g}  "
        now = time.monotonic()
        if now < self._due:
            return
        text = self._text(step, now)
        self._said = (step, now)
        if self._live is None:
            self._due = now + _LOG_SECONDS
            log.info("%s", text)
        else:
            self._due = now + _DRAW_SECONDS
            self._draw(text)

    def _text(self, step: int, now: float) -> str:
        said_step, said_at = self._said
        speed = self._batch_size * (step - said_step) / max(now - said_at, 1e-9)
        left = (self._last_step - step) * (now - self._began) / max(step - self._first, 1)
        return (
            f"step {step}/{self._last_step}  {self._loss}{speed:,.0f} samples/s  "
            f"{self._peak_bytes() / 2**20:,.0f} MiB  {timedelta(seconds=round(left))} left"
        )

    def _draw(self, text: str) -> None:
        from rich.text import Text

        try:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        except OSError:  # the terminal is gone, and the run goes on
            self._due = math.inf
