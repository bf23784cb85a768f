"""What a rank says of its end, which the launcher may read at any moment."""

import json
from pathlib import Path
from typing import Any

import pytest

from pmexp.training.rank import WholeErrorFile


def test_the_launcher_never_reads_half_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    dump, seen = json.dump, []

    def half_way(*args: Any) -> None:
        seen.append(file.exists())
        dump(*args)

    monkeypatch.setattr(json, "dump", half_way)
    WholeErrorFile().record_exception(ValueError("of rank 1"))
    assert seen == [False]
    assert json.loads(file.read_text())["message"]["message"] == "ValueError: of rank 1"
    assert [*tmp_path.iterdir()] == [file]
