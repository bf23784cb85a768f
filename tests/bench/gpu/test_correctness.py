"""The stage `correctness` on the CPU: it holds there, and what does not hold is named with its place."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from forked_python import ForkedPython
from pmexp.bench.gpu import compile_ahead, compile_share, stock_masks
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.equality import difference
from pmexp.bench.gpu.stages import correctness
from pmexp.bench.gpu.stock_masks import check_beyond_int32, check_stock_masks
from pmexp.bench.gpu.surroundings import DROPOUTS
from pmexp.packed_dropout import ops

Lines = list[dict[str, Any]]


def run(stage: Callable[[Bench], object]) -> Lines:
    findings = io.StringIO()
    stage(Bench(torch.device("cpu"), True, Budget(600), findings))
    return [json.loads(line) for line in findings.getvalue().splitlines()]


def faults(lines: Lines) -> Lines:
    return [line for line in lines if line["kind"] == "failed" or line.get("held") is False]


@pytest.mark.slow
def test_all_holds_on_the_cpu() -> None:
    lines = run(correctness.measure)
    assert faults(lines) == []
    checks = {line["what"] for line in lines if line["kind"] == "check"}
    for some in ("packed masks and products in torch.bfloat16", "torch.compile, seeded, mode=default"):
        assert some in checks
    cases = [line["cells"] for line in lines if line.get("table") == "rng_torch"]
    assert {case["dtype"] for case in cases} == {
        f"torch.{t}" for t in ("bfloat16", "float32", "float16", "float64")
    }
    assert all(case["equal"] for case in cases)
    left_out = [line["text"].partition(":")[0] for line in lines if line["kind"] == "left_out"]
    reduced = [f"torch.compile, {name}, mode=reduce-overhead" for name in DROPOUTS]
    assert left_out == ["bytes that a mask keeps", "CUDA graphs", "streams", *reduced]


def test_what_every_run_relies_on_comes_first() -> None:
    names = list(correctness.PIECES)
    last = [name for name in names if "float64" in name or "reduce-overhead" in name or "4 bits" in name]
    assert len(names) == 32 and len(last) == 6
    assert min(map(names.index, last)) > names.index("torch.compile, seeded, mode=default")
    assert names.index("rng=torch in torch.float16") < names.index("record of rng=torch")  # tells of them


def test_shares_of_the_checks_are_all_of_them_and_end_with_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    pieces = {
        name: lambda bench, name=name: done.append(f"{name} {bench.device} {bench.tiny}") for name in "abcde"
    }
    monkeypatch.setattr(correctness, "PIECES", pieces)
    assert compile_share.main("cpu", "tiny", "1", "2", "60") == 0
    assert done == ["b cpu True", "d cpu True"]
    assert compile_share.main("cpu", "full", "0", "2", "60") == 0
    assert done[2:] == ["a cpu False", "c cpu False", "e cpu False"]
    assert compile_share.main("cpu", "tiny", "0", "1", "1") == 3 and len(done) == 5


@pytest.mark.slow
def test_processes_that_do_not_end_are_ended_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", ForkedPython)
    assert compile_ahead.run_shares("no such device", "tiny", 1, 60) == 0
    started: list[ForkedPython] = []

    def start_a_sleeper(command: list[str], **streams: int) -> ForkedPython:
        started.append(ForkedPython([sys.executable, "-S", "-c", "import time; time.sleep(600)"], **streams))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start_a_sleeper)
    assert compile_ahead.run_shares("cpu", "tiny", 2, 0.2) == 0
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_a_wrong_bit_is_named_and_costs_no_other_check(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ops.apply_packed_mask

    def wrong(x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
        y: Tensor = original(x, packed, p, bits)
        if x.dtype is torch.float16 and x.numel() == 65537:
            y[65536] += 1
        return y

    monkeypatch.setattr(ops, "apply_packed_mask", wrong)
    operators = {
        name: piece for name, piece in correctness.PIECES.items() if "packed masks" in name or "large" in name
    }
    (fault,) = faults(lines := run(lambda bench: bench.in_order(operators)))
    assert fault["what"] == "packed masks and products in torch.float16"
    assert fault["detail"].startswith("gradient of (65537,), p = 0.1, 1 bit: 1 of 65537 elements from 0 on")
    assert "first element 65536" in fault["detail"]
    assert [line["what"] for line in lines if line["kind"] == "check"][2:] == [
        "every element of a large packed mask",
        *(f"packed masks and products in torch.{dtype}" for dtype in ("float16", "float64")),
    ]


def test_a_dropout_that_draws_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_masks, "OURS", lambda x, p: torch.dropout(x, p + 0.01, True))
    lines = run(lambda bench: check_stock_masks(bench, torch.bfloat16))
    wrong = faults(lines)
    assert (
        len(wrong) == 1
        and "aligned, output" in wrong[0]["detail"]
        and "misaligned, gradient" in wrong[0]["detail"]
    )
    assert not any(line["cells"]["equal"] for line in lines if line["kind"] == "row")


def test_windows_of_a_large_mask_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(lines := run(lambda bench: check_beyond_int32(bench, torch.bfloat16, 77))) == []
    assert [line["what"] for line in lines if line["kind"] == "check"] == [
        "packed masks of 65613 elements in torch.bfloat16, by the definition",
        "rng=torch is nn.Dropout bit for bit at 65613 elements in torch.bfloat16",
    ]
    original = ops.packed_dropout

    def wrong(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        y, packed = original(x, *rest)
        packed[-1] ^= 1
        return y, packed

    monkeypatch.setattr(ops, "packed_dropout", wrong)
    fault, *_ = faults(run(lambda bench: check_beyond_int32(bench, torch.bfloat16, 64)))
    assert fault["detail"].startswith("mask of elements 65536 to 65600: 1 of 8 elements from 0 on differ")


def test_differences_are_of_bits() -> None:
    zero = torch.zeros(3)
    assert difference(zero, zero.clone()) == ""
    assert difference(zero[:0], zero[:0]) == ""
    nan = torch.tensor([float("nan")])
    assert difference(nan, nan.clone()) == ""
    assert "first element 1: -0.0 in place of 0.0" in difference(torch.tensor([0.0, -0.0, 0.0]), zero)
    assert "torch.float16 (3,) in place of torch.float32 (3,)" in difference(zero.half(), zero)
    assert difference(torch.tensor([[True], [False]]), torch.tensor([[True], [True]])).endswith(
        "False in place of True"
    )
    assert difference(torch.ones(2, 3).t(), torch.ones(3, 2)) == ""
