"""Drills: what a killed driver, two drivers at once and a full disk leave is a sweep that comes to its end."""

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from disks import small_disk
from disturbances import failing_machine, hold, pid_of, when_training
from faulty_calls import environment
from forked_python import ForkedPython
from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.state import State, state_of
from pmexp.training.prepared import Prepared
from same_run import assert_same_run, deterministic
from small_runs import TINY_VIT, Runs, last_of_each

STEPS = [
    "train.batch_size=64",
    "train.log_every=1",
    "train.epochs=2",
    "tracking=off",
    "checkpoint.every_s=0",
]
SWEEP = ["-m", *TINY_VIT, *STEPS, "variant=pm-drop"]


@pytest.fixture(scope="module")
def alone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run that is left alone is executed for the first test that compares with it, and then found."""
    return tmp_path_factory.mktemp("alone")


@contextmanager
def driver(runs: Runs, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "pmexp.train", *last_of_each(arguments), f"runs_dir={runs.folder}"]
    with ForkedPython(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def attempts(runs: Runs) -> list[int]:
    return [RunFolder(folder).owner()["attempt"] for folder in runs.run_folders()]


@pytest.mark.slow
def test_a_killed_driver_takes_its_runs_along_and_the_next_one_goes_on(
    runs: Runs, alone_folder: Path
) -> None:
    hold(runs, "pm-drop-s0")
    with driver(runs, *SWEEP):
        worker = pid_of(runs, "pm-drop-s0", with_checkpoint=True)
    (folder,) = runs.run_folders()
    deadline = time.monotonic() + 60
    while state_of(RunFolder(folder)) is State.running and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state_of(RunFolder(folder)) is State.interrupted
    assert json.loads((folder / "failure.json").read_text())["error"].startswith("Interrupted: SIGTERM")
    assert RunFolder(folder).owner()["pid"] == worker
    assert runs.train(*SWEEP)[0] == 0
    alone = Runs(alone_folder, runs.capture)
    assert alone.train(*SWEEP)[0] == 0
    assert_same_run(folder, alone.run_folders()[0])


@pytest.mark.slow
def test_two_drivers_of_one_sweep_share_it_and_run_nothing_twice(runs: Runs) -> None:
    """The second meets the first one's run, starts no process for it, and waits when it has done all others."""
    arguments = [*SWEEP, "seed=0,1,2,3", "train.epochs=1"]
    held = hold(runs, "pm-drop-s0")

    def let_go() -> None:
        deadline = time.monotonic() + 300
        while (len(runs.summaries()) < 3 or not held.exists()) and time.monotonic() < deadline:
            time.sleep(0.02)
        held.unlink()

    with driver(runs, *arguments) as first, ThreadPoolExecutor() as beside:
        pid_of(runs, "pm-drop-s0")
        beside.submit(let_go)
        code, out, err = runs.train(*arguments)
        said, _ = first.communicate()
    assert (code, first.returncode) == (0, 0), err + said
    assert "is executed" not in said
    (met,) = re.findall(r"^(.*) is executed by another process .*; waiting for it$", out, re.MULTILINE)
    *own, last = re.findall(r"^(.*) finished \((.*)\)$", out, re.MULTILINE)
    assert len(own) == 3 and last[0] == met and re.fullmatch(r"4 of 4 in [^;]*", last[1])
    assert attempts(runs) == [1, 1, 1, 1]
    assert len({RunFolder(folder).owner()["pid"] for folder in runs.run_folders()}) == 4
    for folder in runs.run_folders():
        steps = [step for step, metric, _ in deterministic(folder) if metric == "train/loss"]
        assert steps == list(range(1, 21))  # an epoch


def test_a_run_that_another_process_finished_while_this_one_was_built_is_left_alone(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmexp.training import run as experiment

    arguments = [*TINY_VIT, "train.max_steps=2", "tracking=off"]
    build = experiment.prepare

    def slow(config: RunConfig) -> Prepared:
        monkeypatch.undo()
        assert runs.train(*arguments)[0] == 0
        return build(config)

    monkeypatch.setattr(experiment, "prepare", slow)
    assert runs.train(*arguments)[0] == 0
    assert attempts(runs) == [1]


def test_what_was_journaled_after_the_checkpoint_is_there_once(runs: Runs, tmp_path: Path) -> None:
    """A checkpoint at step 4, an end without one in step 8."""
    arguments = [*TINY_VIT, *STEPS, "train.max_steps=16", "variant=pm-drop"]
    with failing_machine(checkpoint=4, last_step=7):
        code, _, err = runs.train(*arguments)
    assert code == 3 and err == "error: ConnectionError: the drill's\n"
    (folder,) = runs.run_folders()
    assert json.loads((folder / "failure.json").read_text())["kind"] == "infrastructure"
    assert [step for step, metric, _ in deterministic(folder) if metric == "train/loss"] == list(range(1, 8))
    assert runs.train(*arguments)[0] == 0
    assert "resumed at step 4 of 16" in (folder / "log.txt").read_text()
    alone = Runs(tmp_path / "alone", runs.capture)
    assert alone.train(*arguments)[0] == 0
    assert_same_run(folder, alone.run_folders()[0])


def test_a_full_disk_costs_checkpoints_and_not_the_run(
    runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    arguments = [*TINY_VIT, *STEPS, "train.max_steps=6"]
    assert runs.train(*arguments)[0] == 0
    (folder,) = runs.run_folders()
    again = Runs(tmp_path / "again", runs.capture)
    twin = again.folder / "default" / folder.name
    with small_disk(twin / "checkpoints" / "resume", kilobytes=4):
        assert again.train(*arguments)[0] == 0
    assert "the older ones stay" in caplog.text
    assert_same_run(folder, twin)


@pytest.mark.slow
def test_a_run_killed_while_a_checkpoint_is_cut_goes_on_from_the_one_before(
    runs: Runs, alone_folder: Path
) -> None:
    arguments = [*SWEEP, "hydra.launcher.max_retries=0"]
    with when_training(runs, "pm-drop-s0", signal.SIGKILL, to_driver=False, with_checkpoint=True):
        assert runs.train(*arguments)[0] == 1
    (folder,) = runs.run_folders()
    assert state_of(RunFolder(folder)) is State.stale
    newest = max((folder / "checkpoints" / "resume").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert runs.train(*arguments)[0] == 0
    assert f"{newest.name} is left out" in (folder / "log.txt").read_text()
    alone = Runs(alone_folder, runs.capture)
    assert alone.train(*arguments)[0] == 0
    assert_same_run(folder, alone.run_folders()[0])


def test_states_by_what_lies_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    folder = RunFolder(tmp_path)
    assert state_of(folder) is State.pending
    owner = {"host": "elsewhere", "pid": 1, "started": time.time(), "attempt": 1}
    (tmp_path / "owner.json").write_text(json.dumps(owner))
    assert state_of(folder) is State.running  # no heartbeat yet
    folder.heartbeat.touch()
    assert state_of(folder) is State.running
    with monkeypatch.context() as patch:
        patch.setattr("pmexp.run_folder.state._STALE_S", -1.0)
        assert state_of(folder) is State.stale
    for hours in (-1, 1):  # that clocks differ by
        os.utime(folder.heartbeat, times=2 * (time.time() + hours * 3600,))
        assert state_of(folder) is State.stale
        with folder.claimed():
            assert state_of(folder) is State.running
    (tmp_path / "owner.json").write_text(json.dumps(owner | {"host": socket.gethostname()}))
    assert state_of(folder) is State.stale  # nobody has it
    with folder.claimed():
        assert state_of(folder) is State.running
    folder.failure.write_text(json.dumps({"status": "failed", "error": "", "kind": "code"}))
    assert state_of(folder) is State.failed
    folder.summary.write_text(json.dumps({"status": "oom", "error": "too much"}))
    assert state_of(folder) is State.oom


def test_the_heartbeat_goes_on_while_a_step_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pmexp.run_folder import folder as run_folder

    monkeypatch.setattr(run_folder, "HEARTBEAT_S", 0.01)
    file = tmp_path / "heartbeat"
    with run_folder._beating(file):
        first = file.stat().st_mtime_ns
        deadline = time.monotonic() + 60
        while file.stat().st_mtime_ns == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert file.stat().st_mtime_ns > first


@pytest.mark.parametrize("lost", ["lock", "folder"])
def test_a_run_whose_folder_is_anothers_by_now_writes_nothing_there(
    lost: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed while it trained, and begun anew by another process: its result would be the other's."""
    from pmexp.training import run as training_run

    test = training_run.tested

    def late(prepared: Any, config: Any, folder: RunFolder, memory: Any) -> Any:
        if lost == "folder":
            shutil.rmtree(folder.path)
            folder.artifacts.mkdir(parents=True)
        folder._lock.unlink(missing_ok=True)
        folder._lock.touch()
        return test(prepared, config, folder, memory)

    monkeypatch.setattr(training_run, "tested", late)
    code, _, err = runs.train(*TINY_VIT, "train.max_steps=2", "train.select=last", "tracking=off")
    assert (
        code == 2 and "was removed or moved while its run was executed; nothing more is written there" in err
    )
    (folder,) = runs.folder.glob("default/*/")
    assert not (folder / "summary.json").exists() and not (folder / "failure.json").exists()


def test_a_folder_that_is_moved_meanwhile_is_said_whatever_fails_by_it(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The weights of the best evaluation are written by safetensors, which says something of its own."""
    from pmexp.training import best_weights

    save = best_weights.save

    def late(folder: RunFolder, *of: Any) -> None:
        runs.folder.rename(tmp_path / "moved")
        save(folder, *of)

    monkeypatch.setattr(best_weights, "save", late)
    code, _, err = runs.train(*TINY_VIT, "train.max_steps=2", "tracking=off")
    assert code == 2 and "was removed or moved while its run was executed" in err.splitlines()[-1]
    assert "Traceback" not in err and not runs.folder.exists()
    monkeypatch.undo()
    (tmp_path / "moved").rename(runs.folder)
    assert runs.train(*TINY_VIT, "train.max_steps=2", "tracking=off")[0] == 0


def test_a_kill_just_after_the_summary_leaves_no_checkpoint_for_ever(runs: Runs) -> None:
    arguments = [*TINY_VIT, "train.max_steps=2", "tracking=off"]
    for again in ([], ["-m", "seed=0"]):
        assert runs.train(*arguments)[0] == 0
        (folder,) = runs.run_folders()
        (folder / "checkpoints" / "resume").mkdir()
        assert runs.train(*again, *arguments)[0] == 0
        assert not (folder / "checkpoints" / "resume").exists()


@pytest.mark.slow
def test_each_system_call_may_fail_or_be_the_last(tmp_path: Path) -> None:
    """A sample of `make drill-calls`, in one process that forks its runs."""
    command = [
        sys.executable,
        Path(__file__).parents[1] / "drills" / "call_drill.py",
        "--sample",
        "12",
        "--seed",
        "1",
    ]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path) | paths)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("all: 6 injected, 6 survived") == 2
