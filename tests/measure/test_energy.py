"""Energy by a stand-in for NVML: a GPU cannot be had here."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmexp.measure import energy
from pmexp.measure.energy import Energy, EnergyCounter, SampledPower, meter_of


class NVMLError(Exception): ...


class NotSupported(NVMLError): ...


def nvml(**functions: Any) -> Any:
    def absent(handle: object) -> int:
        raise NotSupported("not supported")

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NotSupported,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        **{"nvmlDeviceGetTotalEnergyConsumption": absent, "nvmlDeviceGetPowerUsage": absent} | functions,
    )


def test_the_counter_is_summed_over_the_steps_and_not_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It advances by 5 J at each reading: one is the probe's, and each step reads twice."""
    counter = iter(range(0, 10**9, 5000))
    module = nvml(nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter))
    monkeypatch.setattr(energy, "open_meter", lambda device: meter_of(module, "GPU-0"))
    instrument = Energy(torch.device("cpu"))
    assert instrument.source == EnergyCounter.source
    for _ in range(3):
        with instrument.step(8):
            pass
    assert instrument.metrics() == {"energy/joules": 15.0, "energy/joules_per_sample": 15.0 / 24}


def test_power_is_integrated_by_the_trapezoidal_rule_where_there_is_no_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(energy, "_SAMPLE_SECONDS", 3600.0)  # the samples are the test's own
    clock = iter([10.0, 12.0, 13.0])
    watts = iter([100_000, 100_000, 300_000, 200_000])  # the first is the probe's
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    meter = meter_of(nvml(nvmlDeviceGetPowerUsage=lambda handle: next(watts)), "GPU-0")
    assert isinstance(meter, SampledPower)
    assert meter.joules() == 2.0 * 200
    assert meter.joules() == 2.0 * 200 + 1.0 * 250
    meter.close()


def test_power_is_sampled_by_itself() -> None:
    """The figure after a second in which power was high only between two readings of ours."""
    taken = 0

    def usage(handle: object) -> int:
        nonlocal taken
        taken += 1
        return 1000

    meter = meter_of(nvml(nvmlDeviceGetPowerUsage=usage), "GPU-0")
    deadline = time.monotonic() + 30
    while taken < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    meter.close()
    assert taken >= 5


def test_a_device_without_either_is_an_error_of_nvml() -> None:
    with pytest.raises(NotSupported):
        meter_of(nvml(), "GPU-0")


def test_without_nvml_nothing_is_measured_and_the_record_says_so() -> None:
    instrument = Energy(torch.device("cpu"))
    with instrument.step(8):
        pass
    assert instrument.source == "not measured: no NVML on cpu"
    assert instrument.metrics() == {}
    instrument.close()
