"""Stage `bandwidth` of `make gpu`, on the CPU at tiny sizes; the device's clock and queue are simulated."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmexp.bench.gpu import device_time, dropouts, kernels
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.device_time import DeviceTimer, ratio_cells, rounds
from pmexp.bench.gpu.kernels import shapes_of
from pmexp.bench.gpu.stages import bandwidth
from pmexp.packed_dropout import cuda_backend, ops, packed_dropout, reference

CPU = torch.device("cpu")
CONTENDERS = {"nn.Dropout", "native_dropout", "packed", "packed, rng=torch", "seeded"}
MASK_BYTES = {"nn.Dropout": 1, "native_dropout": 1, "packed": 1 / 8, "packed, rng=torch": 1 / 8, "seeded": 0}


class Findings:
    """A bench, and what was written by it."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.bench = Bench(CPU, True, Budget(1e6), self._file)

    def of(self, kind: str, table: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._file.getvalue().splitlines()]
        return [
            line.get("cells", line) for line in lines if line["kind"] == kind and line.get("table") == table
        ]


@pytest.fixture(scope="module")
def findings() -> Findings:
    findings = Findings()
    bandwidth.measure(findings.bench)
    return findings


def test_every_part_has_its_rows_and_nothing_fails(findings: Findings) -> None:
    assert findings.of("failed") == []
    assert all(check["held"] for check in findings.of("check"))
    cells = {(row["dtype"], row["elements"]) for row in findings.of("row", "copy")}
    assert cells == {(d, n) for d in ("bf16", "fp32") for n in (4096, 32, 256)} | {("fp16", 4096)}
    rows = findings.of("row", "bandwidth")
    assert {(r["dtype"], r["elements"], r["contender"]) for r in rows} == {
        (*cell, name) for cell in cells for name in CONTENDERS
    }
    assert {row["contender"] for row in findings.of("row", "host_cost")} == CONTENDERS
    assert {(row["dtype"], row["kernel"]) for row in findings.of("row", "kernels")} == {
        (dtype, name)
        for dtype in ("bf16", "fp32")
        for name in (
            "copy",
            "torch forward",
            "torch backward",
            "packed forward",
            "packed backward",
            "seeded, each way",
        )
    }
    assert [line["text"] for line in findings.of("left_out")] == [
        "shapes of kernels: Triton's kernels run on CUDA"
    ]


def test_bytes_are_those_that_each_pass_must_move(findings: Findings) -> None:
    for row in findings.of("row", "bandwidth"):
        itemsize = {"bf16": 2, "fp16": 2, "fp32": 4}[row["dtype"]]
        a_pass = row["elements"] * (2 * itemsize + MASK_BYTES[row["contender"]])
        for phase, moved in (("forward", a_pass), ("backward", a_pass), ("both", 2 * a_pass)):
            expected = moved / row[f"{phase}_us"] / 1e3
            assert row[f"{phase}_GB_per_s"] == pytest.approx(expected)
        assert (
            row["rounds"] < 6 and row["low"] is row["high"] is row["share_low"] is row["share_high"] is None
        )
        if row["contender"] == "nn.Dropout":
            assert row["times_nn_dropout"] == 1.0


@pytest.mark.parametrize("name", ["seeded", "nn.Dropout"])
def test_a_dropout_that_is_wrong_is_named_and_has_no_figure(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {dropout.name: dropout for dropout in dropouts.dropouts()}
    contender = replace(right[name].contender, drop=partial(packed_dropout, p=0.5))
    wrong = {**right, name: replace(right[name], contender=contender)}
    monkeypatch.setattr(dropouts, "dropouts", lambda: [*wrong.values()])
    findings = Findings()
    bandwidth._bandwidth(findings.bench, DeviceTimer(CPU), "fp32", 256, 1)
    rows = findings.of("row", "bandwidth")
    assert {row["contender"] for row in rows} == CONTENDERS - {name}
    assert all(("times_nn_dropout" in row) == (name != "nn.Dropout") for row in rows)
    (failed,) = findings.of("failed")
    assert failed["text"].startswith(f"{name}, 256 elements in fp32: ContenderFailed: {name} fails its check")


@pytest.mark.parametrize("name", ["packed_dropout", "apply_packed_mask", "seeded_dropout"])
def test_a_kernel_that_is_wrong_has_no_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = SimpleNamespace(**reference.OPERATORS)
    right = getattr(operators, name)
    setattr(operators, name, lambda x, other, *rest: right(x, other.flip(0) + 1, *rest))
    monkeypatch.setattr(ops, "operators_for", lambda *_: operators)
    findings = Findings()
    kernels.measure_kernels(findings.bench, DeviceTimer(CPU), "bf16", 4096, 1)
    (check,) = findings.of("check")
    assert not check["held"] and findings.of("row", "kernels") == []


# ---- shapes of kernels


def some_kernels() -> Any:
    return SimpleNamespace(
        **reference.OPERATORS, _BLOCKS=64, _OPTIONS={"num_warps": 4, "enable_fp_fusion": False}
    )


def test_each_shape_is_taken_by_the_kernels_and_their_own_comes_back() -> None:
    module = some_kernels()
    taken = set()

    def seen(*arguments: Any) -> Any:
        assert module._OPTIONS["enable_fp_fusion"] is False
        taken.add((module._BLOCKS, module._OPTIONS["num_warps"]))
        return reference.apply_packed_mask(*arguments)

    module.apply_packed_mask = seen
    findings = Findings()
    shapes_of(module, findings.bench, DeviceTimer(CPU), "bf16", 4096, 2)
    rows = findings.of("row", "kernel_shapes")
    shapes = [(row["blocks"], row["warps"]) for row in rows]
    assert shapes[0] == (64, 4) and rows[0]["own"] and rows[0]["forward_times_own"] == 1.0
    assert set(shapes) == taken == {(b, w) for b in (32, 64, 128) for w in (2, 4, 8)} and len(rows) == 9
    assert (module._BLOCKS, module._OPTIONS) == (64, {"num_warps": 4, "enable_fp_fusion": False})


def test_a_shape_that_fails_or_is_wrong_is_named_and_has_no_row() -> None:
    module = some_kernels()

    def forward(x: torch.Tensor, seed: torch.Tensor, p: float, bits: int) -> Any:
        if module._BLOCKS == 32:
            raise RuntimeError("out of resource")
        return reference.packed_dropout(x, seed + (module._OPTIONS["num_warps"] == 8), p, bits)

    module.packed_dropout = forward
    findings = Findings()
    shapes_of(module, findings.bench, DeviceTimer(CPU), "bf16", 4096, 1)
    rows = findings.of("row", "kernel_shapes")
    assert {(row["blocks"], row["warps"]) for row in rows} == {(b, w) for b in (64, 128) for w in (2, 4)}
    assert [f["text"] for f in findings.of("failed")] == [
        f"shape (32, {w}): RuntimeError: out of resource" for w in (4, 8, 2)
    ]
    assert [check["held"] for check in findings.of("check")] == [False, False]


def test_triton_kernels_have_what_the_shapes_are_set_by() -> None:
    module = cuda_backend.operators()
    assert module._BLOCKS > 0 and "num_warps" in module._OPTIONS


# ---- time


class Device:
    """A device with a queue: an event is reached once the waits queued before it are over."""

    def __init__(self) -> None:
        self.now, self.busy_until = 0.0, 0.0
        device = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = max(device.now, device.busy_until)

            def query(self) -> bool:
                return device.now >= self.at

            def synchronize(self) -> None:
                device.now = max(device.now, self.at)

            def elapsed_time(self, other: "Event") -> float:
                return 1e3 * (other.at - self.at)

        self.Event = Event

    def run(self, host: float, on_device: float) -> None:
        """A call that takes the host so many seconds, and then the device."""
        self.now += host
        self.busy_until = max(self.now, self.busy_until) + on_device

    def synchronize(self, device: torch.device | None = None) -> None:
        self.now = max(self.now, self.busy_until)

    def _sleep(self, cycles: int) -> None:
        self.run(0.0, cycles / 2e9)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device()
    for name in ("Event", "synchronize", "_sleep"):
        monkeypatch.setattr(torch.cuda, name, getattr(device, name))
    monkeypatch.setattr(device_time.time, "perf_counter", lambda: device.now)
    return device


def test_the_hosts_part_is_not_in_the_devices_time(device: Device) -> None:
    timer = DeviceTimer(torch.device("cuda"))
    timed = timer.time(lambda: device.run(1e-5, 3e-6), 20)
    assert timed.seconds == pytest.approx(3e-6) and timed.host_seconds == pytest.approx(1e-5)
    assert timed.covered and timer.too_short == 0


def test_the_device_waits_longer_where_the_host_takes_longer(device: Device) -> None:
    timer, prepared = DeviceTimer(torch.device("cuda")), []
    timed = timer.time(lambda: device.run(1e-3, 3e-6), 30, lambda: prepared.append(1))
    assert timed.seconds == pytest.approx(3e-6) and timed.covered and timer.too_short == 0
    assert len(prepared) == 3


def test_a_call_that_waits_for_the_device_is_counted(device: Device) -> None:
    def call() -> None:
        device.run(1e-5, 3e-6)
        device.synchronize()

    timer = DeviceTimer(torch.device("cuda"))
    assert not timer.time(call, 5).covered and timer.too_short == 1


def test_rounds_turn_the_order_and_end_with_the_time(device: Device) -> None:
    class Clock:
        def __call__(self) -> float:
            return device.now

    orders = []
    for order in rounds("ab", 9, Budget(5.5, Clock())):
        orders.append(order)
        device.now += 1.0
    assert orders == ["ab", "ba", "ab", "ba"]  # a fifth would need twice its second
    assert list(rounds("ab", 3, Budget(-1.0))) == ["ab"]
    assert list(rounds("ab", 3, Budget(-1.0), least=2)) == ["ab", "ba"]
    assert len(list(rounds("ab", 3, Budget(-1.0), least=6))) == 3


def test_a_ratio_of_few_rounds_has_no_interval() -> None:
    times = [3.0, 2.0, 4.0, 2.0, 6.0, 2.0]
    assert ratio_cells(times[:5], [2.0] * 5, "ratio", "its_") == {
        "ratio": 1.5,
        "its_low": None,
        "its_high": None,
    }
    assert ratio_cells(times, [2.0] * 6, "ratio", factor=10) == {"ratio": 12.5, "low": 10.0, "high": 30.0}
    assert ratio_cells([], [2.0], "ratio") == {}
