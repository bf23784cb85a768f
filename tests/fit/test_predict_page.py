"""The worked example of docs/predict.md prints what the page shows, and a table of own models is made."""

import contextlib
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pmexp.fit.command import main

PAGE = Path(__file__).parents[2] / "docs" / "predict.md"


def test_the_example_prints_what_the_page_shows() -> None:
    code, shown = re.findall(r"```(?:python|text)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    assert printed.getvalue() == shown


def test_a_table_of_models_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ModuleType("own_models")
    own.tiny = lambda: (nn.Linear(8, 2), (torch.zeros(4, 8), torch.zeros(4).long()), cross_entropy)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_models", own)
    plan, out = tmp_path / "plan.yaml", tmp_path / "table.md"
    plan.write_text('models: {Tiny: "own_models:tiny"}\nparts: [bf16]\narms: [[], [offload]]\n')
    assert main([f"table={plan}", "budget=1e9", f"out={out}"]) == 0
    rows = [line.split(" | ") for line in out.read_text().splitlines() if line.startswith("| Tiny")]
    assert [row[1] for row in rows] == ["stock", "offload"] and rows[0][-1] == "yes |"
    plan.write_text('models: {Tiny: "own_models:huge"}\narms: [[]]\n')
    assert main([f"table={plan}"]) == 2
    assert "models.Tiny: own_models:huge cannot be had (AttributeError" in capsys.readouterr().err


def test_a_table_finds_functions_in_the_working_folder_and_says_what_they_do_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # as the command pmexp has it
    Path("of_this_folder.py").write_text("def fails():\n    1 / 0\ndef number():\n    return 3\n")
    for name, said in (
        ("fails", "cannot be had (ZeroDivisionError"),
        ("number", "returns an int; return a model"),
    ):
        Path("plan.yaml").write_text(f"models: {{Mine: 'of_this_folder:{name}'}}\narms: [[]]\n")
        assert main(["table=plan.yaml"]) == 2
        assert f"error: models.Mine: of_this_folder:{name} {said}" in capsys.readouterr().err
