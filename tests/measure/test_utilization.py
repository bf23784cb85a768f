"""How busy the device and its PCIe link are, by a stand-in for NVML: a GPU cannot be had here."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmexp.measure import utilization
from pmexp.measure.utilization import PCIE, UTILIZATION, Rates, SampledRates

RX, TX = "to the device", "from the device"
BUSY = {"rates": SimpleNamespace(gpu=90, memory=40), RX: 2_000_000, TX: 5_000}
IDLE = {"rates": SimpleNamespace(gpu=0, memory=0), RX: 0, TX: 0}


class NVMLError(Exception): ...


def opened(now: Callable[[], dict[str, Any]]) -> Any:
    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_PCIE_UTIL_RX_BYTES=RX,
        NVML_PCIE_UTIL_TX_BYTES=TX,
        nvmlDeviceGetUtilizationRates=lambda handle: now()["rates"],
        nvmlDeviceGetPcieThroughput=lambda handle, direction: now()[direction],
    )
    return nvml, "GPU-0"


def sampled(rates: Rates, now: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> SampledRates:
    monkeypatch.setattr(utilization, "_SAMPLE_SECONDS", 1e-3)
    with monkeypatch.context() as patch:
        patch.setattr(utilization, "nvml_device", lambda device: opened(now))
        return SampledRates(torch.device("cuda"), rates)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached() and time.monotonic() < deadline:
        time.sleep(1e-3)


@pytest.mark.parametrize(
    ("rates", "means"),
    [
        (UTILIZATION, {"gpu/utilization": 0.9, "gpu/memory_bandwidth_utilization": 0.4}),
        (PCIE, {"gpu/pcie_received_mb_per_s": 2_000.0, "gpu/pcie_sent_mb_per_s": 5.0}),
    ],
)
def test_samples_count_in_timed_steps_alone_and_a_resumed_run_goes_on(
    rates: Rates, means: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = False
    instrument = sampled(rates, lambda: BUSY if timed else IDLE, monkeypatch)
    time.sleep(0.01)
    assert instrument.metrics() == {}  # nothing is timed yet
    timed = True
    with instrument.timed_step():
        until(lambda: instrument.samples >= 3)
    instrument.close()
    assert instrument.metrics() == pytest.approx(means)
    resumed = SampledRates(torch.device("cpu"), rates)
    assert (resumed.source, resumed.metrics()) == ("not measured: no NVML on cpu", {})
    resumed.restore(instrument.state())
    resumed.close()
    assert resumed.metrics() == instrument.metrics()


@pytest.mark.parametrize("rates", [UTILIZATION, PCIE])
def test_a_device_that_does_not_tell_is_named(rates: Rates, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> dict[str, Any]:
        raise NVMLError("not supported")

    instrument = sampled(rates, absent, monkeypatch)
    instrument.close()
    assert (instrument.source, instrument.metrics()) == ("not measured: NVML: not supported", {})


def test_a_device_that_falls_silent_later_is_named_and_what_it_said_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost() -> dict[str, Any]:
        if instrument and instrument[0].samples >= 2:
            raise NVMLError("GPU is lost")
        return BUSY

    instrument: list[SampledRates] = []
    instrument.append(sampled(PCIE, lost, monkeypatch))
    with instrument[0].timed_step():
        until(lambda: "lost" in instrument[0].source)
    instrument[0].close()
    assert instrument[0].source == (
        "NVML, PCIe throughput over 20 ms sampled every 1 ms, until NVML: GPU is lost"
    )
    assert instrument[0].metrics()["gpu/pcie_sent_mb_per_s"] == 5.0
