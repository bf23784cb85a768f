"""Runs that wait between two steps, where a file asks for it, until a signal arrives: what disturbs them there
finds them however fast the machine is, and they need few steps."""

import os
import time
from collections import UserList
from pathlib import Path

_LONGEST_S = 400.0  # a run whose signal was lost ends then, and its test says what is missing


class Held(UserList[str]):
    """The stop signals that a run has got, looked at between two steps.

    At the look number `step` the file `hold` is renamed to its `held_file`, with the run's process in it. The run goes
    on with a signal, and where that file is removed.
    """

    def __init__(self, received: list[str], hold: Path, step: int) -> None:
        super().__init__()
        self.data, self._hold, self._step, self._looks = received, hold, step, 0

    def __bool__(self) -> bool:
        self._looks += 1
        if self._looks == self._step and self._hold.is_file():
            held = held_file(self._hold)
            self._hold.write_text(str(os.getpid()))
            self._hold.rename(held)
            deadline = time.monotonic() + _LONGEST_S
            while not self.data and held.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        return bool(self.data)


def hold_file(runs_dir: Path, run: str) -> Path:
    """The file by which the run `<variant>-s<seed>` below `runs_dir` is told to wait."""
    return runs_dir.with_name(f"{runs_dir.name}.holds") / run


def held_file(hold: Path) -> Path:
    """What `hold` is renamed to while its run waits."""
    return hold.with_name(f"{hold.name}.held")
