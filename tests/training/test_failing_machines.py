"""Runs on machines that fail: a full disk, no memory to begin with, a fork server that was killed."""

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from composed import config
from disks import fill, small_disk
from disturbances import hold, pid_of
from forked_python import fork_parent_of_workers
from hydra_plugins.pmexp_launchers import local_execution, processes
from hydra_plugins.pmexp_launchers.processes import Worker
from pmexp.errors import MachineError
from pmexp.run_folder.failure import FailureKind
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.state import State, state_of
from pmexp.training import preflight
from pmexp.training import run as training_run
from pmexp.training.checkpoint import Checkpoints
from pmexp.training.loop import Training
from pmexp.training.recorder import Recorder
from same_run import assert_same_run
from small_runs import TINY_VIT, Runs

SHORT = [*TINY_VIT, "train.max_steps=4", "train.log_every=1", "tracking=off"]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has workers forked from this process, which has imported all and is patched, so that they start at once."""
    monkeypatch.setattr(processes, "_forkserver", multiprocessing.get_context("fork"))
    monkeypatch.setattr(processes, "preload", lambda: None)
    monkeypatch.setattr("pmexp.run_folder.folder._redirect_output", lambda file: None)  # pytest has it


def failing_step(monkeypatch: pytest.MonkeyPatch, fail: Any) -> None:
    step = Training._step

    def failing(training: Training, index: int) -> Any:
        if index == 2:
            fail()
        return step(training, index)

    monkeypatch.setattr(Training, "_step", failing)


def test_a_disk_without_room_even_for_the_failure_is_the_machines(
    forked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, kilobytes=1024):
        run = config(*SHORT, f"runs_dir={disk}", "train.select=last")
        failing_step(monkeypatch, lambda: fill(disk))
        outcome = Worker(run, 0, None).outcome()
        assert not RunFolder(run.folder).failure.exists()
    assert outcome.kind is FailureKind.infrastructure, outcome
    assert outcome.error.startswith("OSError: [Errno 28]")


STAGES = {
    "claim": (RunFolder, "claimed"),
    "folder": (RunFolder, "opened"),
    "building": (training_run, "prepare"),
    "checkpoints": (Checkpoints, "load"),
    "journal": (Recorder, "open"),
    "start": (training_run, "record_start"),
    "training": (training_run, "_train"),
    "test": (training_run, "tested"),
    "result": (Recorder, "finish"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_wherever_it_fails_the_failure_is_of_this_try_and_on_record(
    stage: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(*SHORT, f"runs_dir={runs.folder}")
    run.folder.mkdir(parents=True)
    folder = RunFolder(run.folder)
    folder.fail(FailureKind.code, "an earlier one")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "a file")

    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage], fail)
        code, _, err = runs.train(*SHORT)
    assert code == 3 and err == "error: OSError: [Errno 5] Input/output error: 'a file'\n"
    if stage != "claim":  # whose folder it is, is not known then
        assert folder.failed()["kind"] == "infrastructure" and "Input/output" in folder.failed()["error"]
    assert not folder.is_claimed()
    assert runs.train(*SHORT)[0] == 0 and not folder.failure.exists()


def test_what_a_worker_says_counts_and_not_the_record_of_an_earlier_try(
    forked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(*SHORT, f"runs_dir={tmp_path}")
    run.folder.mkdir(parents=True)
    RunFolder(run.folder).fail(FailureKind.code, "an earlier one")

    def full(*_: Any) -> None:
        raise MachineError("runs_dir: there is no room")

    monkeypatch.setattr(training_run, "refuse_unusable", full)
    outcome = Worker(run, 0, None).outcome()
    assert (outcome.kind, outcome.error) == (
        FailureKind.infrastructure,
        "MachineError: runs_dir: there is no room",
    )


def test_a_check_whose_process_is_killed_is_one_line(
    forked: None, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check", lambda runs, here: os.kill(os.getpid(), signal.SIGKILL))
    code, _, err = runs.train("-m", *SHORT)
    assert code == 3 and err == (
        "error: the process that checks data and checkpoints was killed; run the same command again\n"
    )


def test_where_no_process_can_be_started_the_runs_fail_in_the_end(
    forked: None, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise EOFError("unexpected EOF")  # what multiprocessing says of a fork server that is killed just now

    monkeypatch.setattr(local_execution, "Worker", none)
    code, out, err = runs.train("-m", *SHORT, "seed=0,1")
    assert code == 1 and "2 of 2 runs did not finish; the same command runs only these again" in err
    assert (
        out.count("; retry ") == 4 and "no process could be started for it (EOFError: unexpected EOF)" in err
    )


def test_an_error_of_the_driver_ends_its_workers(
    forked: None, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise multiprocessing waits for them when the driver ends, which may take days."""
    show = local_execution.SweepProgress.show
    before = set(multiprocessing.active_children())  # what other tests have left

    def broken(progress: Any, running: Any) -> None:
        show(progress, running)
        if any(RunFolder(run.folder).is_claimed() for run in running):
            raise ZeroDivisionError

    monkeypatch.setattr(local_execution.SweepProgress, "show", broken)
    with pytest.raises(ZeroDivisionError):
        runs.train("-m", *SHORT, "train.max_steps=null", "train.epochs=1000", "train.select=last")
    assert set(multiprocessing.active_children()) <= before
    (folder,) = runs.run_folders()
    assert state_of(RunFolder(folder)) is State.interrupted


@pytest.fixture
def killed_fork_server(runs: Runs) -> Iterator[list[int]]:
    """Kills the fork server as soon as the first run has a checkpoint, before which it does not end. Later tests
    get one that is a fork again, in place of the one that was started anew."""
    hold(runs, "pm-drop-s0")
    pids: list[int] = []
    server: Any = forkserver._forkserver

    def kill() -> None:
        pids.append(pid_of(runs, "pm-drop-s0", with_checkpoint=True))
        os.kill(server._forkserver_pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    yield pids
    thread.join()
    fork_parent_of_workers()


@pytest.mark.slow
def test_a_sweep_whose_fork_server_is_killed_goes_on(
    runs: Runs, killed_fork_server: list[int], tmp_path: Path
) -> None:
    """The run was not killed with it: it ends by itself, with a checkpoint, and the next worker goes on."""
    arguments = [
        *TINY_VIT, "train.batch_size=64", "train.log_every=1", "train.epochs=2", "train.select=last",
        "tracking=off", "variant=pm-drop", "checkpoint.every_s=0",
    ]  # fmt: skip
    code, out, err = runs.train("-m", *arguments)
    assert code == 0, err
    assert "the parent of all workers was killed, so its end was not seen; retry 1 of 2" in out
    (folder,) = runs.run_folders()
    assert killed_fork_server != [RunFolder(folder).owner()["pid"]]
    assert "resumed at step" in (folder / "log.txt").read_text()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{killed_fork_server[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{killed_fork_server[0]}").exists()
    alone = Runs(tmp_path / "alone", runs.capture)
    assert alone.train(*arguments)[0] == 0
    assert_same_run(folder, alone.run_folders()[0])
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
