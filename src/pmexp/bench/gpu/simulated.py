"""Compares the peak memory of a step as pmexp.fit simulates it, and as the device's allocator has it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pmexp.bench.gpu.leftovers import free_memory
from pmexp.bench.gpu.workload import PUT_IN, Size, Workload, untrained
from pmexp.measure.peak_memory import PeakMemory
from pmexp.simulation import predict

AT_REST = "at rest"  # before a step: parameters and AdamW's state
PHASES = (AT_REST, "forward", "backward", "update")


@dataclass(frozen=True)
class Simulated:
    """Memory of one configuration's step as it is predicted."""

    peak_bytes: int
    phases: Mapping[str, int]  # bytes at the peak of each phase, of PHASES
    by_category: Mapping[str, int]  # bytes at the step's peak


@dataclass(frozen=True)
class Measured:
    """Memory of one configuration's step as it was measured."""

    phases: Mapping[str, int]  # bytes at the peak of each phase, of PHASES
    reserved_bytes: int | None  # by the allocator, at their most; None on the CPU
    requested_bytes: int | None  # at most asked of the allocator: the peak without rounded blocks

    @property
    def peak_bytes(self) -> int:
        return max(self.phases.values())


def simulated_step(size: Size, attention: str, precision: str, variant: str, like: str) -> Simulated:
    """Predicts the step of Workload(size, attention, precision, ...) without running it, within seconds on
    the host.

    like: "cuda" or "cpu", whose operators the step is made of.
    """
    shape = ((size.batch, size.length), torch.int64)
    predicted = predict(
        lambda: untrained(size, attention),
        {"input_ids": shape, "labels": shape},
        prepare=PUT_IN[variant],
        forward=lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        like=like,
    )
    phases = dict.fromkeys(PHASES, 0)
    for name, peak in predicted.peaks.items():
        phase = name.partition(",")[0]  # "backward, first layer" is of backward
        phases[phase] = max(phases[phase], peak.total)
    phases[AT_REST] = predicted.peak.by_category["parameters"] + predicted.peak.by_category["optimizer"]
    return Simulated(predicted.peak_bytes, phases, predicted.peak.by_category)


def measured_step(workload: Workload, variant: str) -> Measured:
    """Takes a step at the size's batch and returns its memory; its kernels are loaded and AdamW's state is
    there by then."""
    free_memory()
    watch = _Watch(workload.device)
    watch.enter(AT_REST)
    workload.step(variant, workload.size.batch, watch.enter)
    watch.end()
    return Measured(watch.peaks, watch.reserved, watch.requested)


class _Watch:
    """Measures the peak of one phase after the other: the allocator's, or on the CPU that of the process."""

    def __init__(self, device: torch.device) -> None:
        self.peaks: dict[str, int] = {}
        self.reserved: int | None = None
        self.requested: int | None = None
        self._device = device
        self._open: tuple[str, PeakMemory] | None = None

    def enter(self, phase: str) -> None:
        self.end()
        self._open = phase, PeakMemory(self._device)

    def end(self) -> None:
        if self._open is None:
            return
        phase, peak = self._open
        self.peaks[phase] = peak.bytes()
        if self._device.type == "cuda":
            stats = torch.cuda.memory_stats(self._device)
            self.reserved = max(self.reserved or 0, stats["reserved_bytes.all.peak"])
            self.requested = max(self.requested or 0, stats["requested_bytes.all.peak"])
