"""Measures the bytes of tensors over a block of work, so that a CPU's figure means what CUDA's means.

torch's profiler records what torch's allocators give and take back, on the CPU as on CUDA, in eager mode as
in compiled layers, and changes no number and no route. (A mode that watches operators would: while one is
active autograd sums gradients out of place, and torch.compile stands aside.)

    peak    the most that is given away at once: on CUDA the allocator's own max_memory_allocated
    mean    the mean of what is given away after each allocation and each return: over events, not over time

On the CPU counting starts from the tensors that are named as held. It does not see what is given back of
earlier memory, nor memory that other libraries own, such as a NumPy array. Nobody names the buckets that ddp
keeps; it makes them anew in a process's second step, which is as a rule the one that a run measures.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from pmexp.measure.memory_by_category import bytes_of
from pmexp.measure.peak_memory import PeakMemory

# The profiler writes a line to stderr at each start and stop. It reads this once, when it is first used.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


@dataclass
class TensorBytes:
    """What a block took, in bytes; `peak` and `mean` are known when the block has ended."""

    before: int  # what was there when it began
    peak: int = 0
    mean: float = 0.0


class TensorMemory:
    """Measures blocks of work on a device, beside the peak of the whole run."""

    def __init__(self, device: torch.device) -> None:
        self.process = PeakMemory(device)  # on CUDA it reads the same counter
        self._device = device

    @property
    def source(self) -> str:
        """What the figures are, for the run's record."""
        if self._device.type == "cuda":
            return "CUDA allocator, max_memory_allocated in one step"
        return "allocations of torch on the CPU in one step"

    @contextmanager
    def block(self, held: Sequence[Tensor]) -> Iterator[TensorBytes]:
        """A context around the block. `held`: the tensors that are there before it; CUDA knows its own."""
        cuda = self._device.type == "cuda"
        taken = TensorBytes(torch.cuda.memory_allocated(self._device) if cuda else bytes_of(held))
        if cuda:
            self.process.begin_anew()
        recorded = _started()
        try:
            yield taken
        finally:
            recorded.stop()
        results: Any = recorded.profiler
        events = results.kineto_results.experimental_event_tree()
        levels = taken.before + np.cumsum([0, *_changes(events, self._device.type)])
        taken.mean = float(levels[1:].mean()) if len(levels) > 1 else float(taken.before)
        taken.peak = torch.cuda.max_memory_allocated(self._device) if cuda else int(levels.max())


def _started() -> profile:
    """Starts a profile of one block, whose events stay unparsed; torch before 2.12 warns of the one block."""
    recorded = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*clears events at the end of each cycle")
        recorded.start()
    return recorded


def _changes(events: Iterable[Any], device: str) -> list[int]:
    """Bytes that the allocator of `device` gave (above 0) and took back (below), in their order.

    What it takes back without having given it here is left out: where a block has the address of one that an
    earlier profile saw given, and no profile saw taken back, the profiler reports the size of that one.
    """
    given: dict[int, int] = {}
    changes = []
    for event in sorted(_allocations(events), key=lambda event: event.start_time_ns):
        fields = event.extra_fields
        if fields.device.type != device:
            continue
        if fields.alloc_size > 0:
            given[fields.ptr] = fields.alloc_size
            changes.append(fields.alloc_size)
        elif fields.ptr in given:
            changes.append(-given.pop(fields.ptr))
    return changes


def _allocations(events: Iterable[Any]) -> Iterator[Any]:
    for event in events:
        if event.tag == _EventType.Allocation:
            yield event
        yield from _allocations(event.children)
