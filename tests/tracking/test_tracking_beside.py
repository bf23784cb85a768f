"""A run that has not imported mlflow is mirrored by a process beside it, for which it does not wait."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pmexp.run_folder.mirrored import lacking
from pmexp.tracking import beside
from pmexp.tracking.beside import MirrorBeside
from pmexp.tracking.mirror import Mirror
from tracked_runs import TrackedRun, disagreements


def test_a_process_mirrors_a_run_that_has_not_imported_mlflow(
    tmp_path: Path, database: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = database(tmp_path / "runs")
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    run = TrackedRun(tmp_path / "runs").mirrored()
    assert isinstance(run._mirror, MirrorBeside)
    for stop in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGUSR2,
    ):  # which SLURM sends to every process of a job
        run._mirror._process.send_signal(stop)
    run.steps(3)
    run.end()
    assert run._mirror._process.returncode == 0 and run.is_complete()
    assert disagreements(tmp_path / "runs", file) == {}


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
