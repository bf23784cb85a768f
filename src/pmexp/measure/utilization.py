"""Samples how busy the device is in the timed steps, by NVML: NVIDIA GPUs alone.

NVML gives the share of its last sample period, between a sixth of a second and a second, in which a kernel
ran, and that in which the device's memory was read or written. The whole board counts, with whatever else
runs on it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pmexp.measure.nvml import nvml_device

_SAMPLE_SECONDS = 0.2


class Utilization:
    """Averages the samples that fall into timed steps.

    `source` says how it is measured, or why it is not, for the run's record.
    """

    def __init__(self, device: torch.device) -> None:
        self.samples, self.kernels, self.memory = 0, 0.0, 0.0  # the last two are sums, in percent
        self._in_timed_step = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        opened = nvml_device(device)
        if isinstance(opened, str):
            self.source = f"not measured: {opened}"
            return
        self._nvml, self._handle = opened
        try:
            self._rates()
        except self._nvml.NVMLError as error:
            self.source = f"not measured: NVML: {error}"
            return
        self.source = f"NVML, utilization rates sampled every {1e3 * _SAMPLE_SECONDS:.0f} ms"
        self._thread = threading.Thread(target=self._sample, name="utilization", daemon=True)
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
        """The mean shares, in [0, 1]; nothing where there is no sample."""
        if not self.samples:
            return {}
        return {
            "gpu/utilization": self.kernels / self.samples / 100,
            "gpu/memory_bandwidth_utilization": self.memory / self.samples / 100,
        }

    def state(self) -> tuple[int, float, float]:
        """What a resumed run goes on from: the number of samples, and the sums of both shares in percent."""
        return self.samples, self.kernels, self.memory

    def restore(self, state: tuple[int, float, float]) -> None:
        self.samples, self.kernels, self.memory = state

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            if self._in_timed_step:
                rates = self._rates()
                self.kernels, self.memory = self.kernels + rates.gpu, self.memory + rates.memory
                self.samples += 1

    def _rates(self) -> Any:
        return self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
