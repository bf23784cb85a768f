"""Stop signals: they are noted when they arrive and acted on between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # SLURM's are the last two


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Names of the stop signals received so far. A second Ctrl-C acts at once."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT.name in received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before: dict[signal.Signals, Any] = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
