"""Runs without training: their folder and journal by hand, their mirror the real one; and what MLflow has of them."""

import json
import math
import os
import signal
import socket
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from forked_python import ForkedPython
from pmexp.command.compose import compose
from pmexp.config import TrackingConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Journal
from pmexp.run_folder.mirrored import lacking, settled
from pmexp.tracking.beside import open_mirror
from pmexp.tracking.mlflow_tracker import MlflowTracker
from pmexp.tracking.record import Record
from pmexp.tracking.tracker import Status

# Without the seven processes that no tracking needs, and with words.
_SERVER = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_LOGGING_LEVEL": "INFO"}
_DEFAULT = compose([])
_IN_MIB = {
    "memory/saved_bytes": "saved",
    "memory/peak_tensor_bytes": "tensors",
    "memory/peak_bytes": "process",
}


def wait_for(what: Callable[[], object]) -> None:
    """Looks again and again, for a minute, until it is so."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TrackedRun:
    def __init__(
        self, runs_dir: Path, seed: int = 0, uri: str | None = None, trackers: Sequence[str] = ("mlflow",)
    ) -> None:
        """Begins the run anew, or goes on with what is in its folder."""
        tracking = TrackingConfig(uri=uri, interval_s=0.1, **dict.fromkeys(trackers, True))
        self.config = replace(_DEFAULT, runs_dir=str(runs_dir), seed=seed, tracking=tracking)
        self.folder = RunFolder(self.config.folder)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        (self.folder.path / "config.yaml").write_text(json.dumps(self.config.to_dict()))
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time(), "attempt": 1}
        (self.folder.path / "owner.json").write_text(json.dumps(owner))
        self.folder.failure.unlink(missing_ok=True)
        self.folder.journal.touch()
        self._step = 0

    def mirrored(self) -> "TrackedRun":
        self._mirror = open_mirror(self.config, self.folder)
        self._mirror.begin()
        return self

    def steps(self, count: int) -> None:
        with Journal(self.folder.journal, self.folder.journal.stat().st_size) as journal:
            for _ in range(count):
                self._step += 1
                journal.write(self._step, {"train/loss": 1 / self._step, "grad/norm": math.nan})

    def settle(self, status: Status) -> str:
        """Ends the MLflow run as the mirror of a run does that is in time, and returns its id."""
        run = MlflowTracker().open(self.config, Record(self.config, self.folder))
        run.settle(status)
        return run.id

    def record_end(self, status: str) -> Status:
        """Writes what a run that ends so leaves in its folder, and returns its status in MLflow."""
        if status in ("finished", "oom"):
            summary = {
                "labels": self.config.labels,
                "settings": self.config.settings,
                "status": status,
                "error": "no memory",
                "metrics": {"val/loss": 0.5, "test/loss": None},
            }
            self.folder.summary.write_text(json.dumps(summary))
        elif status in ("failed", "interrupted"):
            self.folder.failure.write_text(json.dumps({"status": status, "error": "why", "kind": "code"}))
        return {"finished": "FINISHED", "oom": "FAILED", "failed": "FAILED"}.get(status, "KILLED")  # type: ignore[return-value]

    def end(self, status: str = "finished") -> None:
        self._mirror.finish(self.record_end(status))

    def is_complete(self) -> bool:
        """Whether it is on record that every tracker has all of the run."""
        chosen, file = {*self.config.tracking.trackers}, self.folder.mirrored
        return settled(file) == chosen and not lacking(file)


def mlflow_runs(database: Path) -> dict[str, tuple[str, str]]:
    """(run id, status) of each MLflow run that was not deleted, by its id, as it is on disk."""
    query = """SELECT runs.run_uuid, tags.value, status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
               WHERE lifecycle_stage = 'active' AND tags.key = 'run_id'"""
    with closing(sqlite3.connect(database)) as connection:
        return {uuid: (run_id, status) for uuid, run_id, status in connection.execute(query)}


def mlflow_parents(database: Path) -> dict[str, str]:
    """Status of each parent run that was not deleted, by its id."""
    query = """SELECT runs.run_uuid, status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
               WHERE lifecycle_stage = 'active' AND key = 'kind' AND value = 'sweep'"""
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute(query).fetchall())


def disagreements(runs_dir: Path, database: Path) -> dict[str, int]:
    """What MLflow has otherwise than the journals and summaries of "default" have it; {} where all agree."""
    runs = mlflow_runs(database)
    folders = {file.parent.name: file.parent for file in (runs_dir / "default").glob("*/config.yaml")}
    ids = Counter(run_id for run_id, _ in runs.values())
    wrong = Counter({"runs lost": len(folders.keys() - ids.keys()), "runs doubled": ids.total() - len(ids)})
    parents = mlflow_parents(database)
    wrong["parents lost"] = bool(runs) and not parents
    wrong["parents doubled"] = len(parents) - bool(parents)
    running = any(status == "RUNNING" for _, status in runs.values())
    wrong["status of a parent"] = sum((status == "RUNNING") != running for status in parents.values())
    with closing(sqlite3.connect(database)) as connection:
        for uuid, (run_id, _) in runs.items():
            query = "SELECT value FROM tags WHERE key = 'mlflow.parentRunId' AND run_uuid = ?"
            wrong["children lost"] += {uuid for (uuid,) in connection.execute(query, (uuid,))} != {*parents}
            rows = connection.execute(
                "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ?", (uuid,)
            )
            there = Counter((key, step, None if is_nan else value) for key, step, value, is_nan in rows)
            wanted = _wanted(folders[run_id])
            wrong["metrics lost"] += (wanted - there).total()
            wrong["metrics doubled"] += (there - wanted).total()
    return dict(+wrong)


def _wanted(folder: Path) -> Counter[tuple[str, int, float | None]]:
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    wanted = Counter((record["metric"], record["step"], record["value"]) for record in records)
    summary = folder / "summary.json"
    final = json.loads(summary.read_text())["metrics"] if summary.is_file() else {}
    in_mib = {
        f"MiB/{shown}": final[name] and round(final[name] / 2**20, 3)
        for name, shown in _IN_MIB.items()
        if name in final
    }
    final = {f"final/{name}": value for name, value in final.items()} | in_mib
    return wanted + Counter((name, 0, value) for name, value in final.items())


def in_process(body: Callable[[], None]) -> Any:
    """Starts a forked process that calls `body`, as a sweep's workers are: mlflow is imported already."""
    process = get_context("fork").Process(target=body)
    process.start()
    return process


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A real `mlflow server` on a sqlite file and a free port of this machine."""

    def __init__(self, folder: Path, database: Path) -> None:
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder, self.database = folder, database

    def start(self) -> None:
        arguments = [
            "--backend-store-uri", f"sqlite:///{self.database}", "--artifacts-destination", str(self._folder),
            "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1",
        ]  # fmt: skip
        command = [sys.executable, "-m", "mlflow", "server", *arguments]
        with (self._folder / "server.txt").open("ab") as log:
            self._process = ForkedPython(
                command, stdout=log, stderr=log, start_new_session=True, env=os.environ | _SERVER
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError((self._folder / "server.txt").read_text())

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
