"""Stage `native_calls` of `make gpu`: its pieces on the CPU, where the same library serves."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pmexp.bench.gpu import compile_ahead
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.stages import native_calls
from pmexp.packed_dropout import native
from pmexp.packed_dropout.native import build

STEPS = {"baseline", "packed, calls by Python", "packed, native calls"}


def findings_of(run: Callable[[Bench], object], device: str = "cpu") -> list[dict[str, Any]]:
    file = io.StringIO()
    run(Bench(torch.device(device), True, Budget(1e6), file))
    return [json.loads(line) for line in file.getvalue().splitlines()]


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native calls serve the CPU, which has index -1."""
    if reason := build.why_not():  # torch 2.10 has none
        pytest.skip(reason)
    if not native.is_loaded():
        torch.ops.load_library(build.library())
    monkeypatch.setattr(native, "_calls", {-1: native.loaded_calls()})
    monkeypatch.setattr(native, "calls_for", lambda x: native._calls[x.get_device()])


def test_without_cuda_it_is_left_out() -> None:
    (line,) = findings_of(native_calls.measure)
    assert line == {"kind": "left_out", "text": "native calls need CUDA"}


def test_without_a_library_it_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(device: torch.device) -> str:
        raise RuntimeError("PMEXP_CUDA_CALLS=native cannot be had: no C++ compiler")

    chosen: list[tuple[str, ...]] = []
    monkeypatch.setattr(native_calls, "backend", backend)
    monkeypatch.setattr(native, "choose", lambda *choice: chosen.append(choice))
    (line,) = findings_of(native_calls.measure, "cuda")
    assert line["kind"] == "left_out" and line["text"].endswith("cannot be had: no C++ compiler")
    assert chosen == [("cuda", "native")]


def test_where_they_differ_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_calls, "backend", lambda device: "triton, calls by Python: they differ")
    monkeypatch.setattr(native, "choose", lambda *choice: None)
    (line,) = findings_of(native_calls.measure, "cuda")
    assert line["kind"] == "check" and not line["held"] and line["detail"].endswith("they differ")


def test_every_piece_has_its_findings_and_nothing_fails(on_the_cpu: None) -> None:
    lines = findings_of(lambda bench: bench.in_order(native_calls.PIECES))
    assert [line for line in lines if line["kind"] in ("failed", "left_out")] == []
    checks = [line for line in lines if line["kind"] == "check"]
    assert len(checks) == 4 and all(line["held"] for line in checks), checks
    rows = [(line["table"], line["cells"]) for line in lines if line["kind"] == "row"]
    assert {row["contender"] for table, row in rows if table == "host_cost"} == {
        "nn.Dropout",
        *STEPS - {"baseline"},
    }
    assert {row["variant"]: row["rounds"] for table, row in rows if table == "steps"} == dict.fromkeys(
        STEPS, 2
    )


def test_native_calls_that_differ_are_named(on_the_cpu: None) -> None:
    right = native.loaded_calls()
    wrong = right._replace(packed_dropout=lambda x, p, *rest: right.packed_dropout(x, p + 0.1, *rest))
    native._calls[-1] = wrong
    for piece in (native_calls._equality, native_calls._steps):
        lines = findings_of(piece)
        assert [line["held"] for line in lines if line["kind"] == "check"] == [False]
        assert not [line for line in lines if line["kind"] == "row"]


def test_late_launches_by_python_are_named(on_the_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    triton_kernels = pytest.importorskip("pmexp.packed_dropout.triton_kernels")
    monkeypatch.setattr(triton_kernels, "launch", lambda *arguments: None)
    right = native_calls._results

    def launched(*arguments: Any) -> Any:
        triton_kernels.launch(triton_kernels._scale_kernel)
        return right(*arguments)

    monkeypatch.setattr(native_calls, "_results", launched)
    (line,) = findings_of(native_calls._launches)
    assert not line["held"] and line["detail"] == "36 launches of _scale_kernel"


def test_the_library_is_built_while_nothing_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A build takes most of the stage's time."""
    begun: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: begun.append(command))
    monkeypatch.setattr(compile_ahead, "run_shares", lambda *arguments: 1)
    findings_of(compile_ahead.compile_ahead, "cuda")
    ((_, _, code),) = begun
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(build, "_build", lambda path: path.touch())
    exec(code, {})
    assert (tmp_path / build.file_name()).exists()
