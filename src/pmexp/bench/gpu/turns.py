"""Times contenders in turn, each against the first one, and measures their peak memory."""

import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.device_time import FEWEST_FOR_AN_INTERVAL, ratio_cells
from pmexp.bench.gpu.device_time import rounds as in_rounds
from pmexp.bench.gpu.leftovers import allocated, check_starts
from pmexp.bench.timing import seconds_a_call
from pmexp.measure.peak_memory import PeakMemory

_WARM_UP = 2  # calls; the first one compiles kernels and makes the optimizer's state
_SHARE_OF_WARM_UP = 0.6  # a contender whose first calls would begin behind this share of the time is left out
_TINY_ROUNDS = 2


@dataclass(frozen=True)
class Turns:
    """Time and memory of one contender."""

    ms: float  # a call, the median of the rounds
    against_first: Mapping[str, float | None]  # "ratio", the first one's time over this one's; its interval
    rounds: int
    peak_bytes: int  # counts all that lies on the device, by CUDA's allocator; elsewhere the process's memory
    above_bytes: int | None  # that peak less what lay on the device when the call began; None elsewhere

    def cells(self) -> dict[str, float | int | None]:
        """Returns the figures as columns of a table."""
        peaks = {"peak_MiB": self.peak_bytes / 2**20, "above_start_MiB": self.above_MiB}
        return {"ms": self.ms, **self.against_first, "rounds": self.rounds, **peaks}

    @property
    def above_MiB(self) -> float | None:
        return None if self.above_bytes is None else self.above_bytes / 2**20


def in_turn(
    bench: Bench,
    calls: Mapping[str, Callable[[], object]],
    budget: Budget,
    rounds: int,
    repeats: int = 1,
) -> dict[str, Turns]:
    """Times each of `calls`, `repeats` times a round, in an order that is reversed at every round.

    There are fewer rounds where `budget` is used up, but as many as an interval needs. What fails or is not
    reached in its first calls is named and missing from what is returned.
    """
    ready = _warmed_up(bench, calls, budget)
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    starts, peaks, above = (dict.fromkeys(ready, 0) for _ in range(3))
    most = _TINY_ROUNDS if bench.tiny else rounds
    for order in in_rounds(list(ready), most, budget, FEWEST_FOR_AN_INTERVAL):
        for name in order:
            lies = allocated(bench.device)
            starts[name] = max(starts[name], lies)
            peak = PeakMemory(bench.device)
            seconds[name].append(seconds_a_call(ready[name], repeats, bench.device))
            peaks[name] = max(peaks[name], peak.bytes())
            above[name] = max(above[name], peak.bytes() - lies)
    check_starts(bench, starts)
    on_cuda = bench.device.type == "cuda"
    first = next(iter(seconds.values()), [])
    return {
        name: Turns(
            1e3 * statistics.median(own),
            ratio_cells(first, own, "ratio"),
            len(own),
            peaks[name],
            above[name] if on_cuda else None,
        )
        for name, own in seconds.items()
    }


def waits_for_device(bench: Bench, call: Callable[[], object]) -> int | None:
    """Counts how often the host waits for the device in one call; None on a CPU."""
    if bench.device.type != "cuda":
        return None
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing" in str(warning.message) for warning in seen)


def _warmed_up(
    bench: Bench, calls: Mapping[str, Callable[[], object]], budget: Budget
) -> dict[str, Callable[[], object]]:
    ready: dict[str, Callable[[], object]] = {}
    reserve = (1 - _SHARE_OF_WARM_UP) * budget.left
    for name, call in calls.items():
        if ready and budget.left < reserve:
            bench.left_out(f"{name}: no time was left for its first calls")
            continue
        with bench.part(name):
            for _ in range(_WARM_UP):
                call()
            if bench.device.type == "cuda":
                torch.cuda.synchronize(bench.device)
            ready[name] = call
    return ready
