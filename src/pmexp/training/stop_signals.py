"""Stop signals: they are noted when they arrive and acted on between two steps."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pmexp.errors import UserError
from pmexp.process import heard_stop_signals

_LOOK_S = 0.5


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Opens a context whose list takes the names of stop signals received. A second Ctrl-C acts at once.

    Raises UserError in any thread but the main one, which alone hears of signals.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError(
            "a run needs the main thread of its process, which alone hears of stop signals; start it there, "
            "or in a process of its own (pmexp train)"
        )
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT.name in received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, note) for number in heard_stop_signals()
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_with_parent(parent: int, grace_s: float) -> None:
    """Has this process stop once `parent`, which has started it, is gone, killed perhaps, and kills it
    `grace_s` seconds later: what it waits for may be gone too.

    parent: the number of its process. The parent tells it, since it may be gone by the time that this process
    has imported what it needs.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
