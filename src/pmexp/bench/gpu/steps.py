"""Measures time, peak memory and bytes saved for backward of a step, variant beside variant."""

import statistics
from dataclasses import dataclass
from functools import partial

from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.device_time import FEWEST_FOR_AN_INTERVAL, Timed, rounds, wall_seconds
from pmexp.bench.gpu.leftovers import allocated, free_memory
from pmexp.bench.gpu.workload import Workload
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.peak_memory import PeakMemory

_WARM_UP = 2  # steps of each variant; the first one compiles kernels and makes AdamW's state


@dataclass(frozen=True)
class StepRow:
    """What the steps of one variant of one model took."""

    variant: str
    batch: int  # samples
    timed: list[Timed]  # a step's wall time and the host's, a round each
    start_bytes: int  # that lay on the device where its steps began, at their most; 0 elsewhere than on CUDA
    peak_bytes: int
    saved_bytes: int  # for backward, by the ledger
    mask_bytes: int
    mask_elements: int

    @property
    def seconds(self) -> list[float]:
        """Wall time of a step, a round each."""
        return [one.seconds for one in self.timed]

    @property
    def ms(self) -> float:
        return 1e3 * statistics.median(self.seconds)

    @property
    def host_ms(self) -> float:
        """Milliseconds until the host was done with a step; the device may not have been."""
        return 1e3 * statistics.median(one.host_seconds for one in self.timed)


def measure_steps(workload: Workload, most: int, budget: Budget) -> tuple[list[StepRow], list[str]]:
    """Times steps of all variants in turn, reversed at every round: a row a variant, and notes.

    The batch is that of the model's size, halved until every variant has room, which the notes say. There are
    `most` rounds; fewer where `budget` is used up, but as many as an interval needs. What is saved for
    backward is counted last, so that nothing of it lies beside a peak. Raises an error of memory
    (is_out_of_memory) where one sample has no room.
    """
    batch, notes = _warm_up(workload)
    timed: dict[str, list[Timed]] = {variant: [] for variant in workload.variants}
    starts, peaks = dict.fromkeys(workload.variants, 0), dict.fromkeys(workload.variants, 0)
    for order in rounds(workload.variants, most, budget, FEWEST_FOR_AN_INTERVAL):
        for variant in order:
            starts[variant] = max(starts[variant], allocated(workload.device))
            peak = PeakMemory(workload.device)
            timed[variant].append(wall_seconds(partial(workload.step, variant, batch), 1, workload.device))
            peaks[variant] = max(peaks[variant], peak.bytes())
    rows = []
    for variant in workload.variants:
        ledger = workload.saved_for_backward(variant, batch)
        peaks_and_times = timed[variant], starts[variant], peaks[variant]
        saved = ledger.total_bytes, ledger.mask_bytes, ledger.mask_elements
        rows.append(StepRow(variant, batch, *peaks_and_times, *saved))
    return rows, notes


def _warm_up(workload: Workload) -> tuple[int, list[str]]:
    """Returns the batch that every variant has room for, and notes of what had no room."""
    batch = workload.size.batch
    notes: list[str] = []
    while True:
        try:
            for variant in workload.variants:
                for _ in range(_WARM_UP):
                    workload.step(variant, batch)
            return batch, notes
        except Exception as error:
            if not is_out_of_memory(error) or batch == 1:
                raise
        free_memory()
        notes.append(f"{workload}: {variant} has no room for a batch of {batch}, which was halved")
        batch //= 2
