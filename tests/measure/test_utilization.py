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
        found = Utilization(torch.device("cuda"))
    time.sleep(0.01)
    assert found.metrics() == {}  # nothing is timed yet
    timed = True
    deadline = time.monotonic() + 30
    with found.timed_step():
        while found.samples < 3 and time.monotonic() < deadline:
            time.sleep(1e-3)
    found.close()
    assert found.metrics() == {
        "gpu/utilization": pytest.approx(0.9),
        "gpu/memory_bandwidth_utilization": pytest.approx(0.4),
    }
    resumed = Utilization(torch.device("cpu"))
    assert (resumed.source, resumed.metrics()) == ("not measured: no NVML on cpu", {})
    resumed.restore(found.state())
    resumed.close()
    assert resumed.metrics() == found.metrics()


def test_a_device_that_does_not_tell_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(handle: object) -> None:
        raise NVMLError("not supported")

    monkeypatch.setattr(utilization, "nvml_device", lambda device: opened(absent))
    found = Utilization(torch.device("cuda"))
    found.close()
    assert (found.source, found.metrics()) == ("not measured: NVML: not supported", {})
