"""Measures the device's time for a call, apart from the host's part in it."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch

from pmexp.bench.gpu.budget import Budget
from pmexp.bench.pairs import paired_ratio

T = TypeVar("T")
FEWEST_FOR_AN_INTERVAL = 6  # rounds; the range of fewer is no interval of 95 %
_HEAD_STARTS = (10_000_000, 40_000_000, 160_000_000)  # cycles of a waiting device, about 5, 20 and 80 ms


class Timed(NamedTuple):
    """Means over the calls of one timing."""

    seconds: float  # that the device takes for a call; on the CPU, wall time
    host_seconds: float  # until the host was done with a call
    covered: bool = True  # no part of the host's is in `seconds`


class DeviceTimer:
    """Times calls that queue up behind a wait of the device and then run without gaps.

    The wait is made longer until all calls are queued by its end. `too_short` counts the timings where
    the longest did not suffice, since something in a call waits for the device, or there are more launches
    than it can queue.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self.too_short = device, 0

    def time(
        self, call: Callable[[], object], repeats: int, prepare: Callable[[], object] = lambda: None
    ) -> Timed:
        """`prepare` runs before, untimed; more than once where the wait was too short."""
        if self._device.type != "cuda":
            prepare()
            seconds = _host_seconds(call, repeats)
            return Timed(seconds, seconds)
        for cycles in _HEAD_STARTS:
            prepare()
            timed = self._queued(call, repeats, cycles)
            if timed.covered:
                return timed
        self.too_short += 1
        return timed

    def _queued(self, call: Callable[[], object], repeats: int, cycles: int) -> Timed:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._device)
        torch.cuda._sleep(cycles)
        first.record()
        host_seconds = _host_seconds(call, repeats)
        covered = not first.query()  # the device waits still
        last.record()
        last.synchronize()
        return Timed(first.elapsed_time(last) / 1e3 / repeats, host_seconds, covered)


def wall_seconds(
    call: Callable[[], object],
    repeats: int,
    device: torch.device,
    prepare: Callable[[], object] = lambda: None,
) -> Timed:
    """Wall time of a call, between two moments at which the device has nothing to do; both fields."""
    prepare()
    _wait_for(device)
    start = time.perf_counter()
    host_seconds = _host_seconds(call, repeats)
    _wait_for(device)
    return Timed((time.perf_counter() - start) / repeats, host_seconds)


def rounds(order: Sequence[T], most: int, budget: Budget, least: int = 1) -> Iterator[Sequence[T]]:
    """`order`, reversed at every second round: `least` rounds, and as many more as `budget` allows."""
    took = 0.0
    for made in range(most):
        if made >= least and not budget.allows(took):
            return
        start = time.perf_counter()
        yield order if made % 2 == 0 else order[::-1]
        took = time.perf_counter() - start


def ratio_cells(
    baseline: Sequence[float], contender: Sequence[float], name: str, prefix: str = "", factor: float = 1.0
) -> dict[str, float | None]:
    """Cells of a row: `factor` times the paired ratio, and its interval, which fewer rounds than
    FEWEST_FOR_AN_INTERVAL do not have; no cells without a baseline."""
    if not baseline:
        return {}
    ratio = paired_ratio(baseline, contender)
    known = len(baseline) >= FEWEST_FOR_AN_INTERVAL
    low, high = (factor * end if known else None for end in (ratio.low, ratio.high))
    return {name: factor * ratio.ratio, f"{prefix}low": low, f"{prefix}high": high}


def _host_seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
