"""`make ui`: what it says where it cannot open. That it opens and ends is in tests/browser."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pmexp.tracking import ui
from pmexp.tracking.database import OpenExperiment
from tracked_runs import TrackedRun, free_port


def test_what_cannot_be_opened_is_one_line(
    tmp_path: Path, database: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str, port: int = 0) -> str:
        assert ui.main([f"runs_dir={tmp_path}", f"port={port or free_port()}", *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1 and printed.out == ""
        return printed.err

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert said("demo").startswith(f"error: there is no database at {uri}")
    assert said().startswith(f"error: there is no database at {uri}")
    assert not (tmp_path / "mlflow.db").exists()
    file = database(tmp_path)
    TrackedRun(tmp_path).settle("FINISHED")
    assert said("demo") == f"error: there is no experiment 'demo' at {uri}; there are: Default, default\n"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert said("default", port=port).startswith(f"error: port: 127.0.0.1:{port} cannot be had")
        all_of_them = said("default", "host=0.0.0.0", port=port)
        assert all_of_them.startswith(f"error: port: 0.0.0.0:{port} cannot be had")
    assert "name an address of this machine" in said("default", "host=203.0.113.1")
    file.write_text("no database " * 1000)
    assert said("default") == f"error: {uri} cannot be read: DatabaseError: file is not a database\n"


def test_a_machine_without_windows_gets_the_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(ui.webbrowser, "open", opened.append)
    monkeypatch.setattr(ui.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    ui._show("http://127.0.0.1:5000")
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    ui._show("http://127.0.0.1:5000")
    assert opened == ["http://127.0.0.1:5000"]


def test_it_opens_while_another_process_writes(
    tmp_path: Path, database: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be a sweep that somebody has suspended by Ctrl-Z."""
    file = database(tmp_path)
    TrackedRun(tmp_path).settle("RUNNING")
    monkeypatch.setattr("pmexp.tracking.database._LOCK_SECONDS", 0.0)  # who waits raises then
    with FileLock(f"{file}.lock"):
        assert ui._page(f"sqlite:///{file}", "default").startswith("#/experiments/1/runs")


def test_the_page_has_the_view_while_the_experiment_has_it(
    tmp_path: Path, database: Callable[[Path], Path]
) -> None:
    uri = f"sqlite:///{database(tmp_path)}"
    TrackedRun(tmp_path).settle("FINISHED")
    page = "#/experiments/1/runs?workflowType=machine_learning"
    assert ui._page(uri, "default") == f"{page}&viewStateShareKey=pmexp"
    OpenExperiment(uri, "default").client.delete_experiment_tag("1", "mlflow.sharedViewState.pmexp")
    assert ui._page(uri, "default") == page
    assert ui._page(uri, None) == "#/experiments?workflowType=machine_learning"
