"""Samples rates of the device in the timed steps, by NVML: how busy it is, and what goes over its PCIe link.

Both are of the whole board, with whatever else runs on it, and of NVIDIA GPUs alone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from pmexp.measure.nvml import nvml_device

_SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Rates:
    """Names rates that NVML gives together. `read` takes the module pynvml and its handle of the device."""

    what: str
    metrics: tuple[str, ...]
    unit: float  # how much of the metrics' unit one of what is read is
    read: Callable[[Any, Any], tuple[float, ...]]


def _utilization(nvml: Any, handle: Any) -> tuple[float, ...]:
    """Returns the percentages of NVML's last sample period, between a sixth of a second and a second, in
    which a kernel ran, and in which the device's memory was read or written."""
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return rates.gpu, rates.memory


def _pcie(nvml: Any, handle: Any) -> tuple[float, ...]:
    """Returns the kB/s that the device received and sent, each over 20 ms, in which NVML waits."""
    directions = nvml.NVML_PCIE_UTIL_RX_BYTES, nvml.NVML_PCIE_UTIL_TX_BYTES
    return tuple(nvml.nvmlDeviceGetPcieThroughput(handle, direction) for direction in directions)


UTILIZATION = Rates(
    "utilization rates", ("gpu/utilization", "gpu/memory_bandwidth_utilization"), 1e-2, _utilization
)
PCIE = Rates(
    "PCIe throughput over 20 ms", ("gpu/pcie_received_mb_per_s", "gpu/pcie_sent_mb_per_s"), 1e-3, _pcie
)


class SampledRates:
    """Averages the samples that fall into timed steps.

    `source` says how they are measured, or why they are not, for the run's record.
    """

    def __init__(self, device: torch.device, rates: Rates) -> None:
        self.samples, self._sums = 0, [0.0] * len(rates.metrics)  # sums of what is read
        self._rates = rates
        self._in_timed_step = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        opened = nvml_device(device)
        if isinstance(opened, str):
            self.source = f"not measured: {opened}"
            return
        self._nvml, self._handle = opened
        try:
            self._read()
        except self._nvml.NVMLError as error:
            self.source = f"not measured: NVML: {error}"
            return
        self.source = f"NVML, {rates.what} sampled every {1e3 * _SAMPLE_SECONDS:.0f} ms"
        self._thread = threading.Thread(target=self._sample, name=rates.what, daemon=True)
        self._thread.start()

    @contextmanager
    def timed_step(self) -> Iterator[None]:
        """A context around a step that is timed."""
        self._in_timed_step = True
        try:
            yield
        finally:
            self._in_timed_step = False

    def metrics(self) -> dict[str, float]:
        """The mean rates; nothing where there is no sample."""
        if not self.samples:
            return {}
        means = [total / self.samples * self._rates.unit for total in self._sums]
        return dict(zip(self._rates.metrics, means, strict=True))

    def state(self) -> tuple[float, ...]:
        """What a resumed run goes on from: the number of samples, and the sums of what was read."""
        return self.samples, *self._sums

    def restore(self, state: tuple[float, ...]) -> None:
        self.samples, self._sums = int(state[0]), list(state[1:])

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            if not self._in_timed_step:
                continue
            try:
                read = self._read()
            except self._nvml.NVMLError as error:
                self.source += f", until NVML: {error}"
                return
            self._sums = [total + rate for total, rate in zip(self._sums, read, strict=True)]
            self.samples += 1

    def _read(self) -> tuple[float, ...]:
        return self._rates.read(self._nvml, self._handle)
