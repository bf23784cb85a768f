"""Shares of the method's ops out of a real profile, and of a made-up one of CUDA."""

import gzip
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch._C._autograd import DeviceType

from pmexp.measure.profile import STEPS, Nsight, Profile, shares
from pmexp.packed_dropout import PackedDropout, ops

CPU = torch.device("cpu")


def profiled(dropout: nn.Module, file: Path) -> tuple[Profile, list[torch.Tensor]]:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(64, 64), dropout, nn.Linear(64, 64))
    profile, losses = Profile(CPU, file), []
    for _ in range(STEPS):
        with profile.step():
            loss = module(torch.ones(128, 64)).square().sum()
            loss.backward()
        losses.append(loss.detach())
    return profile, losses


def test_ops_past_the_dispatcher_are_seen_and_only_while_profiling(tmp_path: Path) -> None:
    direct = ops.operators_for
    profile, _ = profiled(PackedDropout(0.1), tmp_path / "trace.json.gz")
    assert ops.operators_for is direct
    measured = profile.metrics()
    assert set(measured) == {"profile/packing_share", "profile/unpacking_share"}
    assert all(0 < share < 0.9 for share in measured.values())
    with gzip.open(tmp_path / "trace.json.gz") as trace:
        names = [event.get("name") for event in json.load(trace)["traceEvents"]]
    assert names.count("pmexp::packed_dropout") == names.count("pmexp::apply_packed_mask") == STEPS - 1


def test_stock_dropout_packs_nothing(tmp_path: Path) -> None:
    profile, _ = profiled(nn.Dropout(0.1), tmp_path / "trace.json.gz")
    assert profile.metrics() == {"profile/packing_share": 0.0, "profile/unpacking_share": 0.0}


def test_profiling_changes_no_number(tmp_path: Path) -> None:
    _, watched = profiled(PackedDropout(0.5), tmp_path / "trace.json.gz")
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(64, 64), PackedDropout(0.5), nn.Linear(64, 64))
    for loss in watched:
        assert torch.equal(module(torch.ones(128, 64)).square().sum(), loss)


def test_a_step_that_fails_leaves_no_profiler_behind(tmp_path: Path) -> None:
    direct = ops.operators_for
    profile = Profile(CPU, tmp_path / "trace.json.gz")
    with profile.step():  # warms up; the next one is recorded
        pass
    with pytest.raises(ZeroDivisionError), profile.step():
        _ = 1 / 0
    assert ops.operators_for is direct and profile.source.startswith("not profiled")
    assert not torch.autograd._profiler_enabled()


def test_shares_on_cuda_are_of_the_time_of_all_kernels() -> None:
    """Kernels are listed by themselves, and their time once more with the op that launched them."""

    def row(key: str, total: float, own: float, device: DeviceType, annotation: bool = False) -> Any:
        return SimpleNamespace(
            key=key, device_time_total=total, self_device_time_total=own, device_type=device,
            is_user_annotation=annotation, cpu_time_total=1.0,
        )  # fmt: skip

    rows = [
        row("pmexp::packed_dropout", 10.0, 10.0, DeviceType.CPU),
        row("pmexp::apply_packed_mask", 5.0, 5.0, DeviceType.CPU),
        row("aten::mm", 85.0, 85.0, DeviceType.CPU),
        row("_dropout_kernel", 10.0, 10.0, DeviceType.CUDA),
        row("_scale_kernel", 5.0, 5.0, DeviceType.CUDA),
        row("gemm", 85.0, 85.0, DeviceType.CUDA),
        row("pmexp step", 200.0, 200.0, DeviceType.CUDA, annotation=True),
    ]
    expected = {"profile/packing_share": 0.1, "profile/unpacking_share": 0.05}
    assert shares(rows, torch.device("cuda")) == expected


def test_nsight_captures_the_steps_and_names_the_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    @contextmanager
    def named(name: str) -> Any:
        said.append(name)
        yield

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda.nvtx, "range", named)
    monkeypatch.setattr(torch.cuda.profiler, "start", lambda: said.append("start"))
    monkeypatch.setattr(torch.cuda.profiler, "stop", lambda: said.append("stop"))
    nsight = Nsight(torch.device("cuda"))
    for _ in range(STEPS):
        with nsight.step(), nsight.phase("forward"):
            pass
    with nsight.phase("forward"):
        pass
    steps = [word for number in range(STEPS) for word in (f"step {number}", "forward")]
    assert said == ["start", *steps, "stop"]
