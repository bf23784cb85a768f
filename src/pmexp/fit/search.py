"""Searches the largest value that fits: guesses by the peaks seen so far, and halves where they mislead."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod

_LONGEST = 2**22  # samples or tokens: more than any budget holds


@dataclass(frozen=True)
class Probe:
    """One value that was tried. `peak_bytes` is None where memory ran out before there was a peak."""

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


def lengths(multiple: int) -> Sequence[int]:
    """Sequence lengths to search: the multiples."""
    return range(multiple, _LONGEST + 1, multiple)


def search(values: Sequence[int], start: int, budget_bytes: int, probe: Callable[[int], Probe]) -> int | None:
    """The largest of the ascending `values` that fits, by `probe`; None where none does.

    Begins at the place `start` and takes three kinds of steps in turn: it tries the middle of what is left,
    or doubles while all fits; the place where a parabola through the last peaks meets `budget_bytes`; and the
    value next to that.
    """
    low, high, place = -1, len(values), start
    probes: dict[int, Probe] = {}
    while low + 1 < high:
        probes[place] = probe(values[place])
        fits = probes[place].fits
        low, high = (place, high) if fits else (low, place)
        halved = min(2 * low + 1, high - 1) if high == len(values) else (low + high) // 2
        match len(probes) % 3:
            case 1:
                place = halved
            case 2:
                place = _guess(values, low, high, list(probes.values()), budget_bytes) or halved
            case _:
                place = low + 1 if fits else high - 1
    return values[low] if low >= 0 else None


def _guess(values: Sequence[int], low: int, high: int, probes: list[Probe], budget_bytes: int) -> int | None:
    """The last place strictly between `low` and `high` that should fit; None where peaks say nothing."""
    points = [(probe.value, probe.peak_bytes) for probe in probes if probe.peak_bytes is not None][-3:]
    if len({value for value, _ in points}) < 2 or low + 1 >= high:
        return None
    between = range(low + 1, high)
    fitting = bisect_right(between, budget_bytes, key=lambda place: ceil(_parabola(points, values[place])))
    return between[max(0, fitting - 1)]


def _parabola(points: list[tuple[int, int]], value: int) -> float:
    """Lagrange's polynomial through two or three points, at `value`."""
    return sum(
        peak * prod((value - other) / (place - other) for other, _ in points if other != place)
        for place, peak in points
    )
