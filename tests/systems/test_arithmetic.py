"""Threads, `system.matmul`, `system.deterministic`: what a process is set to, what the record says, when it is too late."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pmexp import process
from pmexp.config import Matmul, SystemConfig
from pmexp.errors import UserError
from pmexp.systems import arithmetic
from small_runs import TINY_VIT, Runs


@pytest.fixture(autouse=True)
def arithmetic_of_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The switches are the process's, which other tests share."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.use_deterministic_algorithms(before[1])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@pytest.mark.parametrize("matmul", Matmul)
def test_the_precision_of_products_is_the_runs_whatever_the_run_before_had(matmul: Matmul) -> None:
    torch.set_float32_matmul_precision("medium")
    arithmetic.set_arithmetic(SystemConfig(matmul=matmul))
    assert torch.get_float32_matmul_precision() == matmul.value
    assert arithmetic.record(torch.device("cpu"))["float32_matmul"] == matmul.value


def test_a_deterministic_run_leaves_no_switch_out_and_the_next_run_has_none() -> None:
    torch.backends.cudnn.benchmark = True
    arithmetic.set_arithmetic(SystemConfig(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    on_cuda = arithmetic.record(torch.device("cuda"))
    assert (on_cuda["deterministic"], on_cuda["cudnn_deterministic"]) == ("yes", "yes")
    assert on_cuda["cublas_workspace"] == ":4096:8"
    arithmetic.set_arithmetic(SystemConfig())
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic


def test_after_the_first_work_on_cuda_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(
        UserError, match="start with CUBLAS_WORKSPACE_CONFIG=:4096:8, or start this run by itself"
    ):
        arithmetic.set_arithmetic(SystemConfig(deterministic=True))
    arithmetic.set_arithmetic(SystemConfig())
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    arithmetic.set_arithmetic(SystemConfig(deterministic=True))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_a_run_computes_as_asked_and_says_so(runs: Runs) -> None:
    seen: list[Any] = []
    keys = [
        *TINY_VIT,
        "train.max_steps=1",
        "variant=pm-drop",
        "system.matmul=high",
        "system.deterministic=true",
    ]
    code, _, error = runs.train(*keys)
    assert code == 0, error
    seen = [torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()]
    assert seen == ["high", True]
    (summary,) = runs.summaries().values()
    environment = summary["environment"]
    assert (environment["float32_matmul"], environment["deterministic"]) == ("high", "yes")
    assert (summary["settings"]["system.matmul"], summary["settings"]["system.deterministic"]) == (
        "high",
        True,
    )


@pytest.mark.parametrize(
    ("said", "threads", "set_to"), [({}, None, 2), ({}, 6, 6), ({"OMP_NUM_THREADS": "4"}, None, 4)]
)
def test_torch_takes_no_more_threads_than_a_container_has_cores_unless_told(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], threads: int | None, set_to: int
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)  # what torch chooses on a machine of 4 cores
        arithmetic.set_threads(threads)
        assert torch.get_num_threads() == set_to
    finally:
        torch.set_num_threads(before)
