"""Measures, for method=measure, the peak of real steps of a run, on its device, with its data.

Every probe prepares its own run and takes two steps, of which the second counts. On CUDA the peak is the
allocator's, and the process gets no more than the budget, so that fragmentation counts as well; what runs
out of memory is a probe that does not fit. On the CPU it is the peak of live tensors' bytes.
(Written for CUDA as torch documents it; there was no device to run it on.)
"""

import gc
from collections.abc import Sequence

import torch

from pmexp.command.compose import compose
from pmexp.errors import UserError, first_line
from pmexp.fit.search import Probe
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.simulation import LiveBytes
from pmexp.training.loop import Training
from pmexp.training.run import prepare

_STEPS = 2


def measure(overrides: Sequence[str], value: int, budget_bytes: int) -> Probe:
    """The peak of the run of `overrides`. Raises UserError for a run that cannot be prepared."""
    try:
        peak, by_category = _peak(prepare(compose(overrides)).training, budget_bytes)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return Probe(value, None, {}, False, f"out of memory: {first_line(error)}")
    finally:
        _clean()
    return Probe(value, peak, by_category, peak <= budget_bytes)


def _peak(training: Training, budget_bytes: int) -> tuple[int, dict[str, int]]:
    device = training.system.device
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_bytes / total), device)
    counter = LiveBytes()
    counter.follow(training.module, training.engine.optimizer)
    steps = training.steps()
    with counter:
        for _ in range(_STEPS):
            counter.forget_peaks()
            counter.enter("step")
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            if next(steps, None) is None:
                raise UserError(
                    f"train.max_steps: {training.total_steps} is too few; a probe takes {_STEPS} steps"
                )
    counted = counter.peaks["step"]
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device)), counted.by_category
    return counted.total, counted.by_category


def _clean() -> None:
    """Frees memory, so that the next probe finds what the first one found."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
