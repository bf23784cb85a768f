"""Trackers that fail while runs go on: training notices nothing, and nothing is lost or doubled in the end."""

import os
import shutil
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import mlflow.store.db.utils
import pytest
from sqlalchemy import Connection, Engine, event

from disks import small_disk
from pmexp.errors import UserError
from pmexp.tracking import mirror
from pmexp.tracking.database import OpenExperiment, create_database
from pmexp.tracking.mlflow_run import MlflowRun
from pmexp.tracking.repair import repair
from small_runs import TINY_VIT, Runs
from tracked_runs import Server, TrackedRun, disagreements, in_process, mlflow_runs, wait_for

WRITERS = 16  # 64 pass as well: 30 s alone
Database = Callable[[Path], Path]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the mirror's waits, since the tests are about what happens when they are over."""
    for name, seconds in {"_START_S": 1.0, "_END_S": 1.0, "_SHORT_END_S": 1.0, "_PAUSE_S": 0.1}.items():
        monkeypatch.setattr(mirror, name, seconds)


def assert_repaired(runs_dir: Path, database: Path) -> None:
    """Asserts that MLflow disagrees with the runs, that a repair mends it, and that another one changes nothing."""
    assert disagreements(runs_dir, database)
    assert list(repair(runs_dir, "default"))[-1] == "1 run: 1 changed"
    assert disagreements(runs_dir, database) == {}
    assert list(repair(runs_dir, "default")) == ["1 run: 1 right"]


def test_training_calls_no_tracker(runs: Runs, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database(runs.folder)
    threads: list[str] = []

    def watched(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            threads.append(threading.current_thread().name)
            return method(*args, **kwargs)

        return call

    for name, method in vars(mlflow.MlflowClient).items():
        if callable(method):
            monkeypatch.setattr(mlflow.MlflowClient, name, watched(method))
    assert runs.train(*TINY_VIT, "train.max_steps=4", "train.log_every=1")[0] == 0
    assert len(threads) > 10 and set(threads) == {"mirror"}


def test_a_database_that_another_process_locks(tmp_path: Path, database: Database, hurried: None) -> None:
    file = database(tmp_path)

    def a_run() -> None:
        run = TrackedRun(tmp_path).mirrored()
        (tmp_path / "begun").touch()
        wait_for((tmp_path / "locked").is_file)
        run.steps(3)
        run.end()
        assert not run.is_complete()

    process = in_process(a_run)
    wait_for((tmp_path / "begun").is_file)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        (tmp_path / "locked").touch()
        process.join()
    assert process.exitcode == 0
    assert_repaired(tmp_path, file)


def test_a_database_that_is_deleted_is_filled_anew(tmp_path: Path, database: Database) -> None:
    """MLflow would go on with its open connection to the deleted one, in vain."""
    file = database(tmp_path)
    run = TrackedRun(tmp_path).mirrored()
    run.steps(3)
    file.unlink()
    database(tmp_path)
    run.steps(3)
    wait_for(lambda: mlflow_runs(file))
    file.unlink()
    database(tmp_path)
    run.end()
    assert run.is_complete()
    assert disagreements(tmp_path, file) == {}


def test_a_disk_that_is_full(tmp_path: Path, empty_database: Path, hurried: None) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, kilobytes=empty_database.stat().st_size // 1024 + 2048):
        file = disk / "mlflow.db"
        file.write_bytes(empty_database.read_bytes())
        ballast = disk / "ballast"

        def a_run() -> None:
            run = TrackedRun(tmp_path, uri=f"sqlite:///{file}").mirrored()
            with suppress(OSError), ballast.open("wb", buffering=0) as stream:
                while stream.write(bytes(4096)):
                    pass
            run.steps(100)
            run.end()
            assert not run.is_complete()

        process = in_process(a_run)
        process.join()
        assert process.exitcode == 0
        ballast.unlink()
        assert_repaired(tmp_path, file)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder, Path(shutil.copy(empty_database, folder)))
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(
    tmp_path: Path, server: Server, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrackedRun(tmp_path, uri=server.uri).mirrored()
    run.steps(3)
    wait_for(lambda: disagreements(tmp_path, server.database) == {})
    server.kill()
    run.steps(3)
    run.end()
    assert not run.is_complete()
    with pytest.raises(UserError, match=f"tracking.uri: {server.uri} fails .*Connection refused"):
        list(repair(tmp_path, "default"))
    server.start()
    assert_repaired(tmp_path, server.database)
    monkeypatch.setattr(mirror, "_END_S", 60.0)  # all arrives now, in its own time
    again = TrackedRun(tmp_path, seed=1, uri=server.uri).mirrored()
    again.steps(3)
    again.end()
    assert again.is_complete()
    assert disagreements(tmp_path, server.database) == {}


def test_a_server_that_never_answers(
    tmp_path: Path, hurried: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "100")
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run = TrackedRun(tmp_path, uri=f"http://127.0.0.1:{silent.getsockname()[1]}").mirrored()
        run.steps(3)
        run.end()
        assert [thread for thread in threading.enumerate() if thread.name == "mirror"]  # it still waits
    assert not run.is_complete()
    assert "pmexp runs repair default" in caplog.text


@pytest.mark.slow
def test_writers_that_begin_at_once_on_no_database(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes on this machine: they queue up for the file, and that makes none of them give up."""
    monkeypatch.setattr(mirror, "_END_S", 600.0)
    # MLflow does some things once, for all of them.
    TrackedRun(database(tmp_path / "warm").parent).settle("FINISHED")

    def a_run(seed: int) -> None:
        run = TrackedRun(tmp_path, seed).mirrored()
        run.steps(5)
        run.end()
        assert run.is_complete()

    processes = [in_process(lambda seed=seed: a_run(seed)) for seed in range(WRITERS)]
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert {status for _, status in mlflow_runs(tmp_path / "mlflow.db").values()} == {"FINISHED"}
    assert disagreements(tmp_path, tmp_path / "mlflow.db") == {}


def test_a_run_that_begins_and_ends_while_another_ends_leaves_no_running_parent(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent was FINISHED when the other one looked, and it is RUNNING since."""
    file = database(tmp_path)
    TrackedRun(tmp_path, 0).settle("FINISHED")
    own = MlflowRun._settle_status

    def meanwhile(run: MlflowRun, *arguments: Any) -> list[str]:
        monkeypatch.setattr(MlflowRun, "_settle_status", own)
        between = TrackedRun(tmp_path, 2)
        between.settle("RUNNING")
        between.settle("FINISHED")
        return own(run, *arguments)

    monkeypatch.setattr(MlflowRun, "_settle_status", meanwhile)
    TrackedRun(tmp_path, 1).settle("FINISHED")
    assert disagreements(tmp_path, file) == {}


def test_being_killed_while_it_is_made_leaves_no_half_of_a_database(tmp_path: Path) -> None:
    def a_run() -> None:
        """Is killed when the first tables are there and the migrations to the present ones are not."""
        mlflow.store.db.utils._upgrade_db = lambda engine: os.kill(os.getpid(), signal.SIGKILL)
        TrackedRun(tmp_path).mirrored()

    process = in_process(a_run)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob(".mlflow.db.new-*"))
    run = TrackedRun(tmp_path).mirrored()
    run.end()
    assert run.is_complete()
    assert not list(tmp_path.glob(".mlflow.db.*"))


def test_a_database_waits_for_the_disk_once_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit waited, a hundred of them, which took ten times as long as all else."""
    file = tmp_path / "mlflow.db"
    synced: list[tuple[int, bool]] = []
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, file.exists())))

    def committed(connection: Connection) -> None:
        waits.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())

    event.listen(Engine, "commit", committed)
    try:
        create_database(file)
        assert waits and set(waits) == {0}
        assert synced == [(file.stat().st_ino, False)]
        OpenExperiment(f"sqlite:///{file}", "default", tmp_path)
        assert set(waits) == {0, 2}  # runs are written as sqlite writes
    finally:
        event.remove(Engine, "commit", committed)
