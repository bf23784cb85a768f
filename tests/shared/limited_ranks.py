"""Ranks of a try of which one may take little memory. In a file of its own: the processes import it."""

import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from pmexp.fit import processes
from pmexp.fit.measure import Try
from pmexp.training.loop import Training

MORE_BYTES = 160 * 2**20  # than rank 1 holds when its steps begin; what it may take then
LIMITED = 1


def limited(tried: Try, place: dict[str, str], sender: Connection) -> None:
    """Rank 1 can have no more than MORE_BYTES for its steps, by the kernel's word."""
    _before_steps(place, lambda: resource.setrlimit(resource.RLIMIT_DATA, (_held() + MORE_BYTES,) * 2))
    processes.execute(tried, place, sender)


def killed(tried: Try, place: dict[str, str], sender: Connection) -> None:
    """Rank 1 is killed before its steps begin, as the kernel does where the machine's memory is at its end."""
    _before_steps(place, lambda: os.kill(os.getpid(), signal.SIGKILL))
    processes.execute(tried, place, sender)


def failing(tried: Try, place: dict[str, str], sender: Connection) -> None:
    """Rank 1 fails by a fault of the code."""

    def fail() -> None:
        raise ValueError("of rank 1")

    _before_steps(place, fail)
    processes.execute(tried, place, sender)


def _before_steps(place: dict[str, str], act: Callable[[], object]) -> None:
    if int(place["RANK"]) != LIMITED:
        return
    steps = Training.steps

    def first(training: Training):  # type: ignore[no-untyped-def]
        act()
        return steps(training)

    Training.steps = first  # type: ignore[method-assign]


def _held() -> int:
    """Bytes that count against RLIMIT_DATA."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
