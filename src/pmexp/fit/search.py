"""The largest value that fits: doubling until one does not, then halving what is left."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_LONGEST = 2**22  # samples or tokens; what no budget reaches


@dataclass(frozen=True)
class Probe:
    """One try. `peak_bytes` is None where the device ran out of memory before there was a peak."""

    value: int
    peak_bytes: int | None
    by_category: dict[str, int]
    fits: bool
    note: str = ""


def batches(global_batch: int | None) -> Sequence[int]:
    """Batch sizes to search: the divisors of the global batch, or all where it is free."""
    if global_batch is None:
        return range(1, _LONGEST + 1)
    return [size for size in range(1, global_batch + 1) if global_batch % size == 0]


def lengths(multiple: int, longest: int = _LONGEST) -> Sequence[int]:
    """Sequence lengths to search: multiples, or all where `longest` is shorter than one."""
    return range(multiple, longest + 1, multiple) or range(1, longest + 1)


def search(
    values: Sequence[int], start: int, budget_bytes: int, probe: Callable[[int], Probe]
) -> tuple[int | None, list[Probe]]:
    """The largest of the ascending `values` that fits, None where none does, and every probe made.

    Begins at the place `start`. Where both ends of what is left have a peak, every other step guesses by the
    straight line between them where it meets `budget_bytes`.
    """
    low, high, place = -1, len(values), start
    probes: dict[int, Probe] = {}
    while low + 1 < high:
        probes[place] = probe(values[place])
        low, high = (place, high) if probes[place].fits else (low, place)
        if high == len(values):
            place = min(2 * low + 1, high - 1)
        else:
            place = (low + high) // 2
            if len(probes) % 2 == 0 and low >= 0:
                place = _crossing(values, low, high, probes, budget_bytes) or place
    return (values[low] if low >= 0 else None), list(probes.values())


def _crossing(
    values: Sequence[int], low: int, high: int, probes: dict[int, Probe], budget_bytes: int
) -> int | None:
    """The last place strictly between `low` and `high` that fits if memory grows along a straight line."""
    below, above = probes[low].peak_bytes, probes[high].peak_bytes
    if below is None or above is None or above <= below or high - low < 2:
        return None
    share = (budget_bytes - below) / (above - below)
    wanted = values[low] + share * (values[high] - values[low])
    return max(low + 1, min(high - 1, bisect_right(values, wanted) - 1))
