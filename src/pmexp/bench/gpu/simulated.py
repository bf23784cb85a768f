"""The peak memory of a step as pmexp.fit simulates it, and as the device's allocator has it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pmexp.bench.gpu.workload import PUT_IN, Size, Workload, untrained
from pmexp.measure.peak_memory import PeakMemory
from pmexp.simulation import predict

AT_REST = "at rest"  # before a step: parameters and AdamW's state
PHASES = (AT_REST, "forward", "backward", "update")


@dataclass(frozen=True)
class Simulated:
    """One configuration's step as it is predicted."""

    peak_bytes: int
    phases: Mapping[str, int]  # bytes at the peak of each phase, of PHASES
    by_category: Mapping[str, int]  # bytes at the step's peak


@dataclass(frozen=True)
class Measured:
    """One configuration's step as it was."""

    phases: Mapping[str, int]  # bytes at the peak of each phase, of PHASES
    reserved_bytes: int | None  # by the allocator at its most; None on the CPU
    requested_bytes: int | None  # of it without the rounding of blocks

    @property
    def peak_bytes(self) -> int:
        return max(self.phases.values())


def simulated_step(size: Size, attention: str, precision: str, variant: str, like: str) -> Simulated:
    """The step of Workload(size, attention, precision, ...) without running it, within seconds on the host.

    like: "cuda" or "cpu": on whose operators.
    """
    shape = ((size.batch, size.length), torch.int64)
    found = predict(
        lambda: untrained(size, attention),
        {"input_ids": shape, "labels": shape},
        prepare=PUT_IN[variant],
        forward=lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        like=like,
    )
    phases = dict.fromkeys(PHASES, 0)
    for name, peak in found.peaks.items():
        phase = name.partition(",")[0]  # "backward, first layer" is of backward
        phases[phase] = max(phases[phase], peak.total)
    phases[AT_REST] = found.peak.by_category["parameters"] + found.peak.by_category["optimizer"]
    return Simulated(found.peak_bytes, phases, found.peak.by_category)


def measured_step(workload: Workload, variant: str) -> Measured:
    """A step at the size's batch; its kernels are loaded and AdamW's state is there by then."""
    batch, device = workload.size.batch, workload.device
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    phases: dict[str, int] = {}
    peaks: dict[str, PeakMemory] = {}
    requested = 0

    def end_phase() -> None:
        nonlocal requested
        for name, peak in peaks.items():
            phases[name] = peak.bytes()
        peaks.clear()
        if on_cuda:
            requested = max(requested, torch.cuda.memory_stats(device)["requested_bytes.all.peak"])
            reserved.append(torch.cuda.max_memory_reserved(device))

    def enter(phase: str) -> None:
        end_phase()
        peaks[phase] = PeakMemory(device)

    reserved: list[int] = []
    enter(AT_REST)
    workload.step(variant, batch, enter)
    end_phase()
    return Measured(
        phases,
        reserved_bytes=max(reserved) if on_cuda else None,
        requested_bytes=requested if on_cuda else None,
    )
