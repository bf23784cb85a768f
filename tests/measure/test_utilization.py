"""How busy the device is, by a stand-in for NVML: a GPU cannot be had here."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmexp.measure import utilization
from pmexp.measure.utilization import Utilization


class NVMLError(Exception): ...


def opened(rates: Any) -> Any:
    return SimpleNamespace(NVMLError=NVMLError, nvmlDeviceGetUtilizationRates=rates), "GPU-0"


def test_samples_count_in_timed_steps_alone_and_a_resumed_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed = False
    rates = SimpleNamespace(gpu=90, memory=40), SimpleNamespace(gpu=0, memory=0)
    monkeypatch.setattr(utilization, "_SAMPLE_SECONDS", 1e-3)
    with monkeypatch.context() as patch:
        patch.setattr(utilization, "nvml_device", lambda device: opened(lambda handle: rates[not timed]))
        instrument = Utilization(torch.device("cuda"))
    time.sleep(0.01)
    assert instrument.metrics() == {}  # nothing is timed yet
    timed = True
    deadline = time.monotonic() + 30
    with instrument.timed_step():
        while instrument.samples < 3 and time.monotonic() < deadline:
            time.sleep(1e-3)
    instrument.close()
    assert instrument.metrics() == {
        "gpu/utilization": pytest.approx(0.9),
        "gpu/memory_bandwidth_utilization": pytest.approx(0.4),
    }
    resumed = Utilization(torch.device("cpu"))
    assert (resumed.source, resumed.metrics()) == ("not measured: no NVML on cpu", {})
    resumed.restore(instrument.state())
    resumed.close()
    assert resumed.metrics() == instrument.metrics()


def test_a_device_that_does_not_tell_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(handle: object) -> None:
        raise NVMLError("not supported")

    monkeypatch.setattr(utilization, "nvml_device", lambda device: opened(absent))
    instrument = Utilization(torch.device("cuda"))
    instrument.close()
    assert (instrument.source, instrument.metrics()) == ("not measured: NVML: not supported", {})
