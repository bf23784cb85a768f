"""W&B alone: what it records, and what an account gets of a run that goes on, over a server that stands for W&B's."""

import json
import os
import sys
import threading
from pathlib import Path

import pytest
import wandb

from pmexp.config import WandbMode
from pmexp.run_folder.journal import Journal
from pmexp.run_folder.mirrored import lacking
from pmexp.tracking import mirror, wandb_run
from pmexp.tracking.record import Record
from pmexp.tracking.repair import repair
from pmexp.tracking.wandb_files import read_wandb
from pmexp.tracking.wandb_run import WandbTracker
from tracked_runs import TrackedRun
from tracker_contents import assert_agrees, wanted
from wandb_server import WandbServer, wandb_server


def test_wandb_records_nothing_but_what_pmexp_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "".join(["0123456789abcdef"] * 3)[:40]
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("WANDB_MODE", "disabled")  # what is typed counts
    monkeypatch.setenv("WANDB_PROJECT", "other")
    monkeypatch.setattr(sys, "argv", ["train", f"token={secret}"])
    run = TrackedRun(tmp_path, trackers=["wandb"])
    run.steps(300)
    run.record_end("finished")
    list(repair(tmp_path, "default"))
    assert_agrees(run, "wandb", "FINISHED")
    (file,) = tmp_path.glob("default/wandb/*/*.wandb")
    assert file.stat().st_size > 2 * 2**15  # several of its blocks, and records in two of them
    files = [file for file in (tmp_path / "default" / "wandb").rglob("*") if file.is_file()]
    assert not [file for file in files if secret.encode() in file.read_bytes()]
    assert not [
        file for file in files if file.name in ("requirements.txt", "wandb-metadata.json", "output.log")
    ]


def test_a_row_is_sent_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the journal was read: W&B takes no value into a row that it has."""
    run = TrackedRun(tmp_path, trackers=["wandb"])
    mirrored = WandbTracker().open(run.config, Record(run.config, run.folder))
    mirrored.settle("RUNNING")
    with Journal(run.folder.journal, 0) as journal:
        for step, metric in (
            (1, "train/loss"),
            (1, "grad/norm"),
            (2, "train/loss"),
            (2, "train/loss"),
            (1, "grad/norm"),
        ):
            journal.write(step, {metric: step / 4})
            mirrored.follow()
    run.record_end("failed")
    # As where other runs of the experiment came since.
    monkeypatch.setattr(type(mirrored._record), "run_name", "baseline-renamed-s0")
    mirrored.settle("FAILED")
    assert_agrees(run, "wandb", "FAILED")
    (file,) = tmp_path.glob("default/wandb/*/*.wandb")
    content = read_wandb(file, "final/")
    assert [row["step"] for row in content.rows] == [1, 2, 2, 1] and content.name == "baseline-renamed-s0"


def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> TrackedRun:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    run = TrackedRun(tmp_path, trackers=["wandb"])
    run.config.tracking.wandb_mode = WandbMode.online
    (run.folder.path / "config.yaml").write_text(json.dumps(run.config.to_dict()))
    return run


def assert_arrived(server: WandbServer, run: TrackedRun) -> None:
    """Asserts that the server has each value of the journal once."""
    rows = [{name: row[name] for name in row if not name.startswith("_")} for row in server.rows]
    got = [(name, row["step"]) for row in rows for name in row if name != "step"]
    assert sorted(got) == sorted((name, step) for name, step, _ in wanted(run, "wandb") if step is not None)


def test_a_run_that_goes_on_sends_an_account_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server() as server:
        first = online(tmp_path, monkeypatch, server.url).mirrored()
        first.steps(4)
        first.end("interrupted")
        assert first.is_complete() and server.exit_code == 255
        assert_arrived(server, first)
        lines = first.folder.journal.read_text().splitlines(keepends=True)
        first.folder.journal.write_text("".join(lines[:4]))  # back to a checkpoint
        wandb.teardown()  # as the first process did when it ended
        second = online(tmp_path, monkeypatch, server.url).mirrored()
        second._step = 2
        second.steps(5)
        second.end()
        assert second.is_complete() and server.exit_code == 0
        assert_arrived(server, second)
        wandb.teardown()
        assert list(repair(tmp_path, "default")) == ["1 run: 1 right"]
        (second.folder.path / "tracking.json").unlink()
        assert list(repair(tmp_path, "default"))[-1] == "1 run: 1 changed"
        assert_arrived(server, second)


def test_an_account_that_cannot_be_reached_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And W&B lets the run begin once it can be reached, though it holds one that could not begin for one in use."""
    for name in ("_START_S", "_END_S", "_SHORT_END_S"):
        monkeypatch.setattr(mirror, name, 0.5)
    monkeypatch.setitem(wandb_run._SETTINGS, "init_timeout", 0.2)
    run = online(tmp_path, monkeypatch, "http://127.0.0.1:9").mirrored()
    run.steps(2)
    run.end()
    assert set(lacking(run.folder.mirrored)) == {"wandb"}
    for thread in [thread for thread in threading.enumerate() if thread.name == "mirror"]:
        thread.join()  # it was not waited for
    monkeypatch.setitem(wandb_run._SETTINGS, "init_timeout", 30.0)
    with wandb_server() as server:
        os.environ["WANDB_BASE_URL"] = server.url
        assert list(repair(tmp_path, "default"))[-1] == "1 run: 1 changed"
        assert_arrived(server, run)
    assert run.is_complete()
