"""Searches the largest batch whose step has room on the device, by a guess from two peaks, and bisection."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.leftovers import free_memory
from pmexp.bench.gpu.workload import Workload
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.peak_memory import PeakMemory

_RESOLUTION = 32  # the search ends where the two bounds are 1/32 apart
_FILLED = 0.98  # the share of the limit where the search begins, as fragments are in no peak


@dataclass(frozen=True)
class Largest:
    """What one variant has room for."""

    batch: int  # samples: the most that were seen to fit; 0 where one does not
    too_large: int | None  # the fewest that were seen not to fit; None where time ran out before


def measure_largest(workload: Workload, variant: str, limit_bytes: int, most: int, budget: Budget) -> Largest:
    """The largest batch up to `most` samples whose step stays within what the allocator may take.

    limit_bytes: that amount, from which the first guess is made. Where `budget` is used up the bracket
    stays wide. Raises an error of memory where the two small batches of the guess have no room.
    """
    start = min(most, _guess(workload, variant, limit_bytes))
    return Largest(*largest(_within(budget, workload, variant, most), start))


def largest(has_room: Callable[[int], bool | None], start: int) -> tuple[int, int | None]:
    """The largest value seen to fit and the smallest seen not to, 1/32 apart unless `has_room` gave None,
    which says that there is no time for another try.

    From `start` it goes up or down by steps of 1/32, doubled each time, and bisects what it has enclosed.
    """
    fits, too_large, value = 0, None, start
    step = max(1, start // _RESOLUTION)
    while (answer := has_room(value)) is not None:
        if answer:
            fits = value
        else:
            too_large = value
        if too_large is not None and too_large - fits <= max(1, fits // _RESOLUTION):
            break
        if too_large is None:
            value = fits + step
        elif fits:
            value = (fits + too_large) // 2
        else:
            value = max(1, too_large - step)
        step *= 2
    return fits, too_large


def _guess(workload: Workload, variant: str, limit_bytes: int) -> int:
    """The batch at which a straight line through two small batches' peaks meets the limit, 1 at least."""
    few = max(1, workload.size.batch // 4)
    peaks = []
    for batch in (few, 2 * few):
        workload.step(variant, batch)  # loads kernels and makes AdamW's state
        peak = PeakMemory(workload.device)
        workload.step(variant, batch).item()
        peaks.append(peak.bytes())
    a_sample = max(1.0, (peaks[1] - peaks[0]) / few)
    return max(1, int(few + (_FILLED * limit_bytes - peaks[0]) / a_sample))


def _within(budget: Budget, workload: Workload, variant: str, most: int) -> Callable[[int], bool | None]:
    """Whether a batch has room; None where its step would take longer than `budget` allows."""
    seconds_a_sample = 0.0

    def has_room(batch: int) -> bool | None:
        nonlocal seconds_a_sample
        if batch > most:
            return False
        if not budget.allows(seconds_a_sample * batch):
            return None
        start = time.perf_counter()
        fits = _has_room(workload, variant, batch)
        seconds_a_sample = max(seconds_a_sample, (time.perf_counter() - start) / batch)
        return fits

    return has_room


def _has_room(workload: Workload, variant: str, batch: int) -> bool:
    free_memory()  # so that blocks of another batch are not in the way
    try:
        workload.step(variant, batch).item()  # waits for the device
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def limited(device: torch.device, kept_free: int, most: int) -> int:
    """Has the allocator take no more than `most` bytes, and no more than what is free now less `kept_free`
    bytes; the bytes it may take.

    So it is the allocator that refuses, which is quick and harmless, and not a kernel that finds no room
    to be loaded.
    """
    free, total = torch.cuda.mem_get_info(device)
    limit = min(most, min(total, free + torch.cuda.memory_reserved(device)) - kept_free)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    return limit
