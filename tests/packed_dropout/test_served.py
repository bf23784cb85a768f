"""`python -m pmexp.packed_dropout` says in one line what keeps it from building its core."""

import runpy
import sys

import pytest

from pmexp import packed_dropout


def test_no_folder_for_the_compiler_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def backend(device: object) -> str:  # root can write anywhere, so that no folder refuses it
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(packed_dropout, "backend", backend)
    monkeypatch.setattr(sys, "argv", ["packed_dropout"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pmexp.packed_dropout", run_name="__main__")
    err = capsys.readouterr().err
    assert ended.value.code == 3 and err.count("\n") == 1
    assert err.startswith("error: No usable temporary directory found in ['/tmp']; set TMPDIR to a folder")
