"""What is logged and printed goes on record without credentials."""

import logging
import sys
import traceback
from pathlib import Path

import pytest

from pmexp import logs
from pmexp.command_line import end
from pmexp.run_folder.failure import FailureKind
from pmexp.run_folder.folder import RunFolder


def test_log_lines_and_tracebacks_are_masked(tmp_path: Path) -> None:
    handler, log = logs.file_handler(tmp_path / "log.txt"), logging.getLogger("pmexp.test")
    log.addHandler(handler)
    try:
        log.error("cannot reach %s", "https://me:planted@host")
        try:
            raise ValueError("password: planted")
        except ValueError:
            log.exception("it failed\x1b[31m")
    finally:
        log.removeHandler(handler)
        handler.close()
    text = (tmp_path / "log.txt").read_text()
    assert "https://me:***@host" in text and "ValueError: password: ***\n" in text and "Traceback" in text
    assert "planted" not in text and "\x1b" not in text


def test_what_python_prints_is_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))
    logs.mask_output()
    print("HF_TOKEN=planted1", flush=True)
    sys.stderr.writelines(["api_key: planted2\n"])
    try:
        raise OSError("https://planted3@host")
    except OSError:
        traceback.print_exc()
    assert sys.stdout.encoding and not sys.stdout.isatty()
    out, err = capsys.readouterr()
    assert out == "HF_TOKEN=***\n" and "api_key: ***" in err and "https://***@host" in err
    assert "planted" not in out + err


def test_a_failure_is_masked_on_record_and_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    folder.fail(FailureKind.code, "ConnectionError: postgresql://me:planted@db")
    assert folder.failed()["error"] == "ConnectionError: postgresql://me:***@db"
    assert end("error: password=planted\x1b[31m\nnext", code=2) == 2
    assert capsys.readouterr().err == "error: password=***\nnext\n"
