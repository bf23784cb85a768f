"""level=tempo shows no figure of a module whose gradient is another one, and writes a line for each side."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pmexp.bench.command import main
from pmexp.systems.tempo import layer_norm

MODULES = ("GELU", "GELU, tanh", "LayerNorm")


def test_tempo_from_the_command_to_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["level=tempo", "tokens=3", "turns=3", f"out={tmp_path}"]
    assert main(arguments) == 0, capsys.readouterr().err
    lines = list(csv.DictReader((tmp_path / "tempo.csv").read_text().splitlines()))
    rows = [f"{name}, {phase}" for name in MODULES for phase in ("forward", "backward")]
    assert [line["what"] for line in lines] == [*rows, *rows, "mask packed"]
    assert [line["dtype"] for line in lines] == ["fp32"] * 6 + ["bf16"] * 6 + ["bool"]
    assert all(0 < float(line["low"]) <= float(line["ratio"]) <= float(line["high"]) for line in lines)
    assert "level=tempo" in json.loads((tmp_path / "environment.json").read_text())["command"]
    right = layer_norm._layer_norm_backward

    def wrong(*arguments: Any) -> tuple[Tensor, Tensor]:
        grad_x, of_parameters = right(*arguments)
        return 1.2 * grad_x, of_parameters

    monkeypatch.setattr(layer_norm, "_layer_norm_backward", wrong)
    assert main(arguments) == 1
    assert "LayerNorm fails its check at fp32: a gradient is off by 2.0e-01 of it" in capsys.readouterr().err


def test_numbers_that_are_none_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["level=tempo", "tokens=0"]) == 2
    assert "tokens: '0' is no whole number; allowed are 1, 2, ..." in capsys.readouterr().err
