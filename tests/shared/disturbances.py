"""Signals that arrive, and faults of the machine that happen, while a run trains."""

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forked_python import fork_parent_of_workers
from held_runs import held_file, hold_file
from small_runs import Runs


def pid_of(runs: Runs, run: str, with_checkpoint: bool = False) -> int:
    """Waits until the run `<variant>-s<seed>` trains, or has a checkpoint, and returns its process."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        for folder in runs.folder.glob(f"default/{run}-*"):
            journal = folder / "journal.jsonl"
            checkpoints = [*folder.glob("checkpoints/resume/*.json")] or not with_checkpoint
            if checkpoints and journal.is_file() and "train/loss" in journal.read_text():
                return int(json.loads((folder / "owner.json").read_text())["pid"])
        time.sleep(0.02)
    raise AssertionError(f"{run} did not start to train")


def hold(runs: Runs, run: str) -> Path:
    """Has the first try of a worker at the run `<variant>-s<seed>` wait for a signal before its end. Returns a file
    that is there while it waits, and whose removal lets it go on, too."""
    fork_parent_of_workers()  # whose workers know of holds
    file = hold_file(runs.folder, run)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    return held_file(file)


@contextmanager
def when_training(
    runs: Runs, run: str, number: signal.Signals, to_driver: bool, with_checkpoint: bool = False
) -> Iterator[list[int]]:
    """Sends a signal to the run's process, or to the driver (this process), as soon as the run trains. A worker's
    run waits for it before its end."""
    hold(runs, run)
    pids: list[int] = []

    def disturb() -> None:
        pids.append(pid_of(runs, run, with_checkpoint))
        os.kill(os.getpid() if to_driver else pids[0], number)

    # A process started in the background, or by nohup, ignores these from birth; one at a terminal does not.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield pids
    finally:
        thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def failing_machine(checkpoint: int, last_step: int) -> Iterator[None]:
    """Runs of this process write one checkpoint, after step `checkpoint`, and fail in the step behind `last_step`."""
    from pmexp.training.checkpoint import Checkpoints
    from pmexp.training.loop import Training

    looks, step = itertools.count(1), Training._step

    def failing(training: Training, index: int) -> Any:
        if index == last_step:
            raise ConnectionError("the drill's")
        return step(training, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "is_due", lambda _: next(looks) == checkpoint)
        patch.setattr(Training, "_step", failing)
        yield
