"""Time, peak memory and bytes saved for backward of a step, variant beside variant."""

import gc
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial

import torch

from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.workload import BASELINE, Workload
from pmexp.bench.pairs import paired_ratio
from pmexp.bench.timing import seconds_a_call
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.saved_for_backward import SavedForBackward

_WARM_UP = 2  # steps of each variant; the first one compiles kernels and makes AdamW's state


@dataclass(frozen=True)
class StepRow:
    """One variant of one model."""

    model: str
    attention: str
    precision: str
    batch: int  # samples
    length: int  # tokens
    variant: str
    ms: float  # of a step, the median
    samples_per_s: float
    ratio: float  # the baseline's time over the variant's, the median of the rounds
    low: float  # of its 95 % interval
    high: float
    peak_bytes: int
    saved_bytes: int  # for backward, by the ledger
    mask_bytes: int
    mask_elements: int
    seconds: list[float]  # of the steps, a round each


def measure_steps(workload: Workload, rounds: int, budget: Budget) -> tuple[list[StepRow], list[str]]:
    """Steps of all variants in turn, in an order that is reversed at every round: a row a variant, and notes.

    The batch is that of the model's size, halved until every variant has room, which the notes say. Where
    `budget` is used up there are fewer rounds, one at least. Raises an error of memory (is_out_of_memory)
    where one sample has no room.
    """
    batch, ledgers, notes = _warm_up(workload)
    seconds: dict[str, list[float]] = {variant: [] for variant in workload.variants}
    peaks = dict.fromkeys(workload.variants, 0)
    order, took = workload.variants, 0.0
    for made in range(rounds):
        if made and not budget.allows(took):
            break
        start = time.perf_counter()
        for variant in order:
            peak = PeakMemory(workload.device)
            step = partial(workload.step, variant, batch)
            seconds[variant].append(seconds_a_call(step, 1, workload.device))
            peaks[variant] = max(peaks[variant], peak.bytes())
        order, took = order[::-1], time.perf_counter() - start
    found = [_row(workload, v, batch, seconds, peaks[v], ledgers[v]) for v in workload.variants]
    return found, notes


def _warm_up(workload: Workload) -> tuple[int, dict[str, SavedForBackward], list[str]]:
    """The batch that every variant has room for, what each saves then, and what had no room."""
    batch = workload.size.batch
    notes: list[str] = []
    while True:
        ledgers = {}
        try:
            for variant in workload.variants:
                ledgers[variant] = workload.saved_for_backward(variant, batch)
                for _ in range(_WARM_UP):
                    workload.step(variant, batch)
            return batch, ledgers, notes
        except Exception as error:
            if not is_out_of_memory(error) or batch == 1:
                raise
        free_memory()
        notes.append(f"{workload}: {variant} has no room for a batch of {batch}, which was halved")
        batch //= 2


def free_memory() -> None:
    """Gives back to the device what a step out of memory has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _row(
    workload: Workload,
    variant: str,
    batch: int,
    seconds: dict[str, list[float]],
    peak_bytes: int,
    ledger: SavedForBackward,
) -> StepRow:
    median = statistics.median(seconds[variant])
    return StepRow(
        model=workload.size.name,
        attention=workload.attention,
        precision=workload.precision,
        batch=batch,
        length=workload.size.length,
        variant=variant,
        ms=1e3 * median,
        samples_per_s=batch / median,
        **asdict(paired_ratio(seconds[BASELINE], seconds[variant])),
        peak_bytes=peak_bytes,
        saved_bytes=ledger.total_bytes,
        mask_bytes=ledger.mask_bytes,
        mask_elements=ledger.mask_elements,
        seconds=seconds[variant],
    )
