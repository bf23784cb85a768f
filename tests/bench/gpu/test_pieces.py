"""Pieces of a stage one behind the other, and where the time of a stage begins."""

import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pmexp.bench.gpu import stage_process
from pmexp.bench.gpu.bench import Bench, read_findings
from pmexp.bench.gpu.budget import Budget, TimeIsUp


def test_every_piece_that_is_not_reached_is_named_and_one_that_fails_costs_no_other() -> None:
    now, did = 0.0, ""
    file = io.StringIO()

    def piece(bench: Bench) -> None:
        nonlocal now, did
        now, did = now + 4, did + "."
        if did == ".":
            raise ValueError("no")

    bench = Bench(torch.device("cpu"), True, Budget(10, lambda: now), file)
    with pytest.raises(TimeIsUp):
        bench.in_order(dict.fromkeys("abcde", piece))
    assert did == ".."
    texts = [json.loads(line)["text"] for line in file.getvalue().splitlines()]
    assert texts == ["a: ValueError: no", *(f"{name}: no time was left" for name in "cde")]


def test_to_import_torch_is_of_a_stages_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a stage would end after its time, when it is killed."""
    ran: list[float] = []
    stage = SimpleNamespace(measure=lambda bench: (time.sleep(0.05), ran.append(bench.budget.left)))
    monkeypatch.setitem(sys.modules, "the_stage", stage)
    findings = tmp_path / "findings.jsonl"
    arguments = ["the_stage", str(findings), "cpu", "tiny", "10"]
    assert stage_process.main(*arguments, str(time.monotonic() - 4)) == 0 and 0 < ran[0] < 6
    assert stage_process.main(*arguments, str(time.monotonic() - 11)) == 3 and len(ran) == 1
    assert [line["kind"] for line in read_findings(findings)] == ["environment"] * 2
