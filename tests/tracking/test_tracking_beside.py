"""A run that has not imported mlflow is mirrored by a process beside it, for which it does not wait."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pmexp.process import STOP_SIGNALS
from pmexp.run_folder.mirrored import lacking
from pmexp.systems.ranks import Ranks
from pmexp.tracking import beside
from pmexp.tracking.beside import MirrorBeside
from pmexp.tracking.mirror import Mirror
from pmexp.training.recorder import Recorder
from tracked_runs import TrackedRun, disagreements

_GARBAGE = """
import gc
class Garbage:
    def __init__(self): self.itself = self
    def __del__(self): print("was looked for")
gc.disable()
Garbage()
"""


def test_a_process_mirrors_a_run_that_has_not_imported_mlflow(
    tmp_path: Path,
    database: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The run waits for its end, which takes no last look for garbage."""
    file = database(tmp_path / "runs")
    monkeypatch.setattr(beside, "_PROGRAM", _GARBAGE + beside._PROGRAM)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    run = TrackedRun(tmp_path / "runs").mirrored()
    assert isinstance(run._mirror, MirrorBeside) and run._mirror._process
    for stop in STOP_SIGNALS:  # which SLURM, or a terminal, sends to all
        run._mirror._process.send_signal(stop)
    run.steps(3)
    run.end()
    assert run._mirror._process.returncode == 0 and run.is_complete()
    assert disagreements(tmp_path / "runs", file) == {}
    assert capfd.readouterr().out == ""


def test_the_process_starts_once_a_step_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_PROGRAM", "import sys; sys.stdin.read()")
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    tracked = TrackedRun(tmp_path / "runs")
    recorder = Recorder(tracked.config, Ranks())
    with recorder.turn(capture_output=False):
        recorder.open(keep_bytes=0)
        recorder.journal.write(0, {"progress/steps_total": 2.0})
        mirror = recorder._mirror
        assert isinstance(mirror, MirrorBeside) and mirror._process is None
        recorder.stepped(1, {"train/loss": 1.0})
        started = mirror._process
        assert started is not None and started.poll() is None
        recorder.stepped(2, {"train/loss": 0.5})
        assert mirror._process is started
        assert recorder.journal.last_values() == {"progress/steps_total": 2.0, "train/loss": 0.5}
        recorder.finish({}, {})
    assert started.returncode == 0


def test_a_run_that_ends_before_its_first_step_is_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = tmp_path / "ended"
    program = f"import pathlib, sys; pathlib.Path({str(ended)!r}).write_text(sys.stdin.read())"
    monkeypatch.setattr(beside, "_PROGRAM", program)
    run = TrackedRun(tmp_path / "runs")
    MirrorBeside(run.config, run.folder).finish("FAILED")
    assert ended.read_text() == "FAILED"


def test_a_process_that_fails_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(beside, "_PROGRAM", "raise SystemExit(3)")
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    run = TrackedRun(tmp_path / "runs").mirrored()
    run.end()
    why = "the process that mirrors it ended with code 3"
    assert f"({why})" in caplog.text and lacking(run.folder.mirrored) == {"mlflow": why}
    assert "pmexp runs repair default" in caplog.text


def test_where_mlflow_is_imported_a_thread_mirrors(tmp_path: Path, database: Callable[[Path], Path]) -> None:
    database(tmp_path / "runs")
    run = TrackedRun(tmp_path / "runs").mirrored()
    assert isinstance(run._mirror, Mirror)
    run.end()
