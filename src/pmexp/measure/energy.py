"""Measures the energy that the device draws in the training steps, by NVML: NVIDIA GPUs alone.

The driver's energy counter is read where the device has one (Volta and later); else its power is sampled in a
thread and integrated. The whole board counts, with whatever else runs on it. In a run of several processes
each measures its own device.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from pmexp.measure.nvml import nvml_device

_SAMPLE_SECONDS = 0.05


class Meter(Protocol):
    """Reads a device's energy in joules since some fixed moment."""

    source: str

    def joules(self) -> float: ...

    def close(self) -> None: ...


class Energy:
    """Sums the energy of the steps; what lies between them, such as validation, is left out.

    `source` says how it is measured, or why it is not, for the run's record. `joules` and `samples` are what
    a resumed run goes on from.
    """

    def __init__(self, device: torch.device) -> None:
        self.joules = 0.0
        self.samples = 0
        self._device = device
        self._meter: Meter | None = None
        meter = open_meter(device)
        if isinstance(meter, str):
            self.source = f"not measured: {meter}"
        else:
            self._meter, self.source = meter, meter.source

    @contextmanager
    def step(self, samples: int) -> Iterator[None]:
        if self._meter is None:
            yield
            return
        before = self._now()
        yield
        self.joules += self._now() - before
        self.samples += samples

    def metrics(self) -> dict[str, float]:
        """The energy of the steps and of a sample; nothing where nothing was measured."""
        if not self.samples:
            return {}
        return {"energy/joules": self.joules, "energy/joules_per_sample": self.joules / self.samples}

    def close(self) -> None:
        if self._meter is not None:
            self._meter.close()

    def _now(self) -> float:
        assert self._meter is not None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._meter.joules()


def open_meter(device: torch.device) -> Meter | str:
    """The meter of `device`, or why there is none."""
    opened = nvml_device(device)
    if isinstance(opened, str):
        return opened
    nvml, handle = opened
    try:
        return meter_of(nvml, handle)
    except nvml.NVMLError as error:
        return f"NVML: {error}"


def meter_of(nvml: Any, handle: Any) -> Meter:
    """The best meter that the module `nvml` (pynvml) has for a device. Raises nvml.NVMLError for none."""
    try:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError_NotSupported:
        nvml.nvmlDeviceGetPowerUsage(handle)
        return SampledPower(nvml, handle)
    return EnergyCounter(nvml, handle)


class EnergyCounter:
    """Reads the energy that a device has used since its driver was loaded, in joules."""

    source = "NVML, the device's energy counter"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def joules(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def close(self) -> None: ...


class SampledPower:
    """The integral of power over time by the trapezoidal rule; it starts when made."""

    source = f"NVML, power sampled every {1e3 * _SAMPLE_SECONDS:.0f} ms"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._total, self._time, self._watts = 0.0, time.perf_counter(), self._power()
        self._thread = threading.Thread(target=self._sample, name="power", daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """Takes a sample itself, so that the figure is of this moment."""
        with self._lock:
            now, watts = time.perf_counter(), self._power()
            self._total += (now - self._time) * (watts + self._watts) / 2
            self._time, self._watts = now, watts
            return self._total

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.joules()

    def _power(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3
