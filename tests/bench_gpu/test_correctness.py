"""The stage `correctness` on the CPU: it holds there, and what does not hold is named with its place."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.equality import difference
from pmexp.bench.gpu.operators import check_operators
from pmexp.bench.gpu.stages import correctness
from pmexp.bench.gpu.stock_masks import check_beyond_int32, check_stock_masks
from pmexp.packed_dropout import ops

Found = list[dict[str, Any]]


def run(stage: Callable[[Bench], object]) -> Found:
    findings = io.StringIO()
    stage(Bench(torch.device("cpu"), True, Budget(600), findings))
    return [json.loads(line) for line in findings.getvalue().splitlines()]


def faults(found: Found) -> Found:
    return [line for line in found if line["kind"] == "failed" or line.get("held") is False]


def test_all_holds_on_the_cpu() -> None:
    found = run(correctness.measure)
    assert faults(found) == []
    checks = {line["what"] for line in found if line["kind"] == "check"}
    for some in ("packed masks and products in torch.bfloat16", "torch.compile, seeded, mode=default"):
        assert some in checks
    cases = [line["cells"] for line in found if line.get("table") == "rng_torch"]
    assert {case["dtype"] for case in cases} == {
        f"torch.{t}" for t in ("bfloat16", "float32", "float16", "float64")
    }
    assert all(case["equal"] for case in cases)
    left_out = [line["text"].partition(":")[0] for line in found if line["kind"] == "left_out"]
    assert left_out == ["bytes that a mask keeps", "streams", "CUDA graphs"]


def test_a_wrong_bit_is_named_and_costs_no_other_check(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ops.apply_packed_mask

    def wrong(x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
        y: Tensor = original(x, packed, p, bits)
        if x.dtype is torch.float16 and x.numel() == 65537:
            y[65536] += 1
        return y

    monkeypatch.setattr(ops, "apply_packed_mask", wrong)
    (fault,) = faults(found := run(check_operators))
    assert fault["what"] == "packed masks and products in torch.float16"
    assert fault["detail"].startswith("gradient of (65537,), p = 0.1, 1 bit: 1 of 65537 elements from 0 on")
    assert "first element 65536" in fault["detail"]
    assert [line["what"] for line in found if line["kind"] == "check"][-1].startswith(
        "every element of a large"
    )


def test_a_dropout_that_draws_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmexp.bench.gpu.stock_masks.OURS", lambda x, p: torch.dropout(x, p + 0.01, True))
    found = run(check_stock_masks)
    wrong = [line for line in faults(found) if line["what"].endswith("torch.bfloat16")]
    assert wrong and "aligned, output" in wrong[0]["detail"] and "misaligned, gradient" in wrong[0]["detail"]
    assert not any(line["cells"]["equal"] for line in found if line["kind"] == "row")


def test_windows_of_a_large_mask_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(found := run(lambda bench: check_beyond_int32(bench, torch.bfloat16))) == []
    assert [line["what"] for line in found if line["kind"] == "check"][2] == (
        "packed masks of 65613 elements in torch.bfloat16, by the definition"
    )
    original = ops.packed_dropout

    def wrong(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        y, packed = original(x, *rest)
        packed[-1] ^= 1
        return y, packed

    monkeypatch.setattr(ops, "packed_dropout", wrong)
    fault, *_ = faults(run(lambda bench: check_beyond_int32(bench, torch.bfloat16)))
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
