"""level=memory: no figure without its check, bytes by two accounts, and what is printed and written."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pmexp.bench.command import main
from pmexp.bench.memory import check, run
from pmexp.bench.memory_models import QUICK, Trained
from pmexp.bench.memory_table import MemoryRow, table
from pmexp.bench.memory_workloads import (
    BYTES,
    CHECKPOINTING,
    NO_DROPOUT,
    PACKED,
    REBUILT,
    WAYS,
    WORKLOADS,
    Target,
    WayToDrop,
)
from pmexp.bench.options import MemoryOptions
from pmexp.errors import ContenderFailed
from pmexp.packed_dropout import PackedDropout, replace_dropout

BY_NAME = {workload.name: workload for workload in WORKLOADS}


def test_from_the_command_to_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "folder"
    arguments = ["level=memory", "models=lora-bf16,torch-encoder", "steps=1", "quick=true", f"out={out}"]
    assert main(arguments) == 0
    with (out / "memory.csv").open(newline="") as file:
        rows = {(row["model"], row["way"]): row for row in csv.DictReader(file)}
    ways = [way.name for way in WAYS]
    assert list(rows) == [(model, way) for model in ("lora-bf16", "torch-encoder") for way in ways]
    for (model, way), row in rows.items():
        saved, alive, peak = (int(row[f"{what}_bytes"]) for what in ("saved", "alive", "peak"))
        assert saved == alive or way == CHECKPOINTING  # which holds more than it saves
        assert saved <= alive < peak and float(row["ms"]) > 0
        assert float(row["rebuilt_saved"]) == int(rows[model, REBUILT]["saved_bytes"]) / saved
    saved = {way: int(row["saved_bytes"]) for (model, way), row in rows.items() if model == "lora-bf16"}
    assert saved[REBUILT] < saved[NO_DROPOUT] < saved[PACKED] < saved[BYTES]
    record = json.loads((out / "environment.json").read_text())
    assert record["command"] == "python -m pmexp.bench " + " ".join(arguments)
    assert {"cpu", "threads", "version_torch", "version_transformers"} <= set(record)
    printed = capsys.readouterr().out
    assert "torch-encoder: " in printed and record["command"] in printed and "target:" not in printed


def other_gradients(trained: Trained) -> bool:
    replace_dropout(trained, PackedDropout)
    next(trained.parameters()).register_hook(lambda gradient: gradient * 2)
    return True


def a_gradient_less(trained: Trained) -> bool:
    replace_dropout(trained, PackedDropout)
    *_, last = trained.parameters()
    last.requires_grad_(False)
    return True


def another_loss(trained: Trained) -> bool:
    replace_dropout(trained, PackedDropout)
    with torch.no_grad():
        next(trained.parameters()).mul_(2)
    return True


@pytest.mark.parametrize(
    ("change", "what"),
    [(other_gradients, "gradients"), (a_gradient_less, "gradients"), (another_loss, "loss")],
)
def test_a_wrong_way_ends_the_benchmark_without_a_figure(
    change: Callable[[Trained], bool], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = WayToDrop("wrong", change)
    options = MemoryOptions(models=("torch-encoder",), steps=1, quick=True, out=None)
    said = f"wrong fails its check in torch-encoder: with the same masks it has not the {what} of packed"
    with pytest.raises(ContenderFailed, match=said):
        run(options, "", [*WAYS[:1], wrong])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["lora-fp32", "bart-base", "tinybert"])  # the others run above
def test_every_way_passes_its_check(name: str) -> None:
    check(BY_NAME[name], QUICK, WAYS)


def row(way: str, saved: float, time: float, low: float, high: float) -> MemoryRow:
    return MemoryRow("tinybert", way, 2**20, 2**20, 2**21, 10.0, 9.0, 12.0, saved, time, low, high)


def test_a_target_is_met_missed_or_not_settled() -> None:
    rows = [row(REBUILT, 1, 1, 1, 1), row(BYTES, 0.7, 0.9, 0.8, 1.1), row(PACKED, 0.8, 1.1, 1.05, 1.2)]
    rows.append(row(CHECKPOINTING, 5.0, 0.8, 0.7, 0.9))
    targets = [
        Target("saved", BYTES, 0.7),
        Target("saved", PACKED, 0.7),
        Target("ms", PACKED, 1.03),
        Target("ms", BYTES, 1.0),
        Target("ms", CHECKPOINTING, 1.0),
    ]
    lines = table(BY_NAME["tinybert"], QUICK, rows, targets).splitlines()
    assert lines[3].split() == [
        *("byte", "masks", "1.00", "1.00", "2.00", "10.0", "[9.0,", "12.0]", "0.700"),
        *("0.900", "[0.800,", "1.100]"),
    ]
    assert lines[-5:] == [
        "  rebuilt keeps 0.700 of byte masks; target: at most 0.7: met",
        "  rebuilt keeps 0.800 of packed; target: at most 0.7: missed",
        "  rebuilt takes 1.100 of packed; target: at most 1.03: missed",
        "  rebuilt takes 0.900 of byte masks; target: at most 1: not settled",
        "  rebuilt takes 0.800 of checkpointing; target: at most 1: met",
    ]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("models=bart", "models: 'bart' is unknown; allowed are lora-fp32, lora-bf16, bart-base,"),
        ("steps=0", "steps: '0' is no number of steps; allowed are 1, 2, ..."),
        ("seed=1", "seed=1: seed is not a key"),
    ],
)
def test_a_wrong_key_is_one_line(key: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["level=memory", key]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {message}") and err.count("\n") == 1 and out == ""
