"""Times the host's part of training steps, way beside way."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from pmexp.bench.gpu.stages.launch_bound import TINYBERT
from pmexp.bench.gpu.workload import BASELINE, NO_DROPOUT, SIZES, Size, Workload
from pmexp.bench.host.stand_in import StandIn
from pmexp.bench.pairs import paired_ratio
from pmexp.packed_dropout import native

_BATCH = 2  # samples; the host's part does not depend on it, and memory that is the host's is small
_WARM_UP = 4
_NATIVE, _PYTHON = "native calls", "calls by Python"
_WAYS = {
    BASELINE: (BASELINE, True),
    NO_DROPOUT: (NO_DROPOUT, True),
    f"pm-drop, {_NATIVE}": ("pm-drop", True),
    f"pm-drop, {_PYTHON}": ("pm-drop", False),
    "seed-only": ("seed-only", True),
    f"pm-drop-recompute, {_NATIVE}": ("pm-drop-recompute", True),
    f"pm-drop-recompute, {_PYTHON}": ("pm-drop-recompute", False),
}  # the variant, and whether calls are native


@dataclass(frozen=True)
class HostRow:
    """What a step took of the host's CPU: a line of the table."""

    model: str
    precision: str
    way: str
    launches: int  # a step
    ms: float  # CPU time of a step, all threads
    times_stock: float  # stock's time over this one's: above 1 is faster
    low: float  # where the 95 % interval begins
    high: float  # where it ends

    def cells(self) -> tuple[str, ...]:
        ratios = (f"{ratio:.3f}" for ratio in (self.times_stock, self.low, self.high))
        return self.model, self.precision, self.way, str(self.launches), f"{self.ms:.2f}", *ratios


def measure(stand_in: StandIn, rounds: int) -> Iterator[HostRow]:
    """Yields the rows of each model and precision as they are there."""
    for size, precision in ((TINYBERT, "bf16"), (TINYBERT, "fp32"), (SIZES[0], "bf16")):
        yield from _rows(stand_in, size, precision, rounds)


def _rows(stand_in: StandIn, size: Size, precision: str, rounds: int) -> list[HostRow]:
    variants = list(dict.fromkeys(variant for variant, _ in _WAYS.values()))
    workload = Workload(size, "eager", precision, torch.device("cuda", 0), variants)
    seconds: dict[str, list[float]] = {way: [] for way in _WAYS}
    launches = dict.fromkeys(_WAYS, 0)
    for turn in range(-_WARM_UP, rounds):
        for way in list(_WAYS) if turn % 2 else list(reversed(_WAYS)):
            before = stand_in.launches()
            took = _cpu_seconds(workload, *_WAYS[way])
            launches[way] = stand_in.launches() - before
            if turn >= 0:
                seconds[way].append(took)
    return [
        _row(size.name, precision, way, launches[way], took, seconds[BASELINE])
        for way, took in seconds.items()
    ]


def _cpu_seconds(workload: Workload, variant: str, by_native: bool) -> float:
    with nullcontext() if by_native else native.by_python():
        start = time.process_time()
        workload.step(variant, _BATCH)
        return time.process_time() - start


def _row(
    model: str, precision: str, way: str, launches: int, seconds: Sequence[float], baseline: Sequence[float]
) -> HostRow:
    ratio = paired_ratio(baseline, seconds)
    ms = 1e3 * statistics.median(seconds)
    return HostRow(model, precision, way, launches, ms, ratio.ratio, ratio.low, ratio.high)
