"""The largest batch whose step has room on the device, by doubling and bisection."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.steps import free_memory
from pmexp.bench.gpu.workload import Workload
from pmexp.measure.out_of_memory import is_out_of_memory

_RESOLUTION = 32  # the search ends where the two bounds are 1/32 apart
_MOST = 2**16  # samples; what no device has room for


@dataclass(frozen=True)
class LargestRow:
    """What one variant of one model has room for."""

    model: str
    attention: str
    precision: str
    length: int  # tokens
    variant: str
    batch: int  # samples: the most that were seen to fit; 0 where one does not
    too_large: int | None  # the fewest that were seen not to fit; None where time ran out before


def measure_largest(workload: Workload, budget: Budget) -> list[LargestRow]:
    """Each variant's largest batch, in equal parts of `budget`."""
    rows = []
    for done, variant in enumerate(workload.variants):
        part = budget.part(len(workload.variants) - done)
        if _has_room(workload, variant, 1):  # which also compiles its kernels and makes AdamW's state
            batch, too_large = largest(_within(part, workload, variant), workload.size.batch)
            found: tuple[int, int | None] = (max(batch, 1), too_large)
        else:
            found = (0, 1)
        size, case = workload.size, (workload.attention, workload.precision)
        rows.append(LargestRow(size.name, *case, size.length, variant, *found))
    return rows


def largest(has_room: Callable[[int], bool | None], start: int) -> tuple[int, int | None]:
    """The largest value seen to fit and the smallest seen not to, 1/32 apart unless `has_room` gave None,
    which says that there is no time for another try."""
    fits, too_large, value = 0, None, start
    while value <= _MOST and (answer := has_room(value)) is not None:
        if answer:
            fits = value
        else:
            too_large = value
        if too_large is not None and too_large - fits <= max(1, fits // _RESOLUTION):
            break
        value = 2 * fits if too_large is None else (fits + too_large) // 2
    return fits, too_large


def _within(budget: Budget, workload: Workload, variant: str) -> Callable[[int], bool | None]:
    """Whether a batch has room; None where its step would take longer than `budget` allows."""
    seconds_a_sample = 0.0

    def has_room(batch: int) -> bool | None:
        nonlocal seconds_a_sample
        if not budget.allows(seconds_a_sample * batch):
            return None
        start = time.perf_counter()
        fits = _has_room(workload, variant, batch)
        if fits:
            seconds_a_sample = (time.perf_counter() - start) / batch
        return fits

    return has_room


def _has_room(workload: Workload, variant: str, batch: int) -> bool:
    try:
        workload.step(variant, batch).item()  # waits for the device
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    free_memory()
    return False
