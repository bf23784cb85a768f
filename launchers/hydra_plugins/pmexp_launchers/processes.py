"""Forks processes from one parent that has imported torch and transformers: a run starts in milliseconds."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from hydra_plugins.pmexp_launchers.sweep import Outcome, is_finished, outcome_of
from pmexp.config import RunConfig
from pmexp.errors import Interrupted, MachineError, RankFailed, RunClaimed, UserError, error_line
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.state import State
from pmexp.tracking.database import silence_mlflow

_PRELOAD = ["hydra_plugins.pmexp_launchers.preloaded"]
_GRACE_SECONDS = 60.0  # from the stop signal to the checkpoint
_CLAIMED = os.EX_TEMPFAIL  # exit code: another process executes the run

_forkserver = multiprocessing.get_context("forkserver")


def preload() -> None:
    """Starts the parent of all workers unless it is there: it imports once what each of them needs.

    SLURM signals every process of a job, and a terminal that goes all that were started there: this one has
    to outlive that, or no further worker can start, and none can end with a checkpoint.
    """
    silence_mlflow()
    _forkserver.set_forkserver_preload(_PRELOAD)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGUSR2)}
    forkserver.ensure_running()
    resource_tracker.ensure_running()
    for number, handler in before.items():
        signal.signal(number, handler)


def check(runs: Sequence[RunConfig], here: bool = True) -> None:
    """Raises UserError where a device, checkpoint or dataset of the runs cannot be had, and MachineError
    where the process that looks for them is killed."""
    receiver, sender = _forkserver.Pipe(duplex=False)
    process = _forkserver.Process(target=_check, args=(list(runs), here, sender))
    try:
        process.start()
        sender.close()
        message = receiver.recv()
    except (EOFError, OSError):  # it or its parent was killed: by a lack of memory, or by a person
        raise MachineError(
            "the process that checks data and checkpoints was killed; run the same command again"
        ) from None
    process.join()
    if message:
        raise UserError(message)


class Worker:
    """Executes one run in a process of its own."""

    def __init__(self, run: RunConfig, slot: int, gpu: str | None) -> None:
        """Starts the process. `gpu`: the one CUDA device that it sees; None: all. Raises EOFError or OSError
        where the parent of all workers is killed just now."""
        preload()  # anew where its parent was killed since
        self.run, self.slot = run, slot
        self._message, sender = _forkserver.Pipe(duplex=False)
        self._process: BaseProcess = _forkserver.Process(
            target=_work, args=(run, sender, gpu), name=run.run_id
        )
        self._process.start()
        sender.close()

    @property
    def sentinel(self) -> int:
        """A handle that multiprocessing.connection.wait finds ready when the process has ended."""
        return self._process.sentinel

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        """Whether the process has ended within so many seconds."""
        self._process.join(seconds)
        return not self._process.is_alive()

    def outcome(self) -> Outcome:
        """Waits for the end of the process and returns what became of the run. The process's own word counts
        first: a full disk has no room for a record, and the record may be that of an earlier try."""
        self._process.join()
        exit_code = self._process.exitcode or 0
        self._process.close()  # if only its parent was killed it notices, and ends with a checkpoint
        if exit_code == _CLAIMED:
            return Outcome(State.running)
        sent: Outcome | None = None
        if self._message.poll():
            with suppress(EOFError):
                sent = self._message.recv()
        if sent and not is_finished(self.run):
            return sent
        return outcome_of(self.run, exit_code)

    def ask_to_stop(self) -> None:
        self._process.terminate()

    def stop(self) -> None:
        """Waits for the run's checkpoint, and kills a process that does not come to an end."""
        if not self.wait(_GRACE_SECONDS):
            self._process.kill()


def _check(runs: Sequence[RunConfig], here: bool, sender: Connection) -> None:
    from pmexp.training import preflight

    message = ""
    try:
        preflight.check(runs, here)
    except UserError as error:
        message = str(error)
    sender.send(message)


def _work(run: RunConfig, sender: Connection, gpu: str | None) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    from pmexp.training import run as experiment

    threading.Thread(target=_stop_with_driver, name="driver", daemon=True).start()
    try:
        experiment.run(run, capture_output=True)
    except RunClaimed:
        sys.exit(_CLAIMED)
    except UserError as error:
        begun = RunFolder(run.folder).failure.is_file()  # it was met in the midst of the run
        kind = FailureKind.code if begun else None
        sender.send(Outcome(State.failed, str(error), bad_input=not begun, kind=kind))
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)
    except RankFailed as error:  # which rank and why is on record, if there was room for it
        if not RunFolder(run.folder).failure.is_file():
            sender.send(_failed(error))
        sys.exit(1)
    except Exception as error:
        failed = _failed(error)
        sender.send(failed)
        if failed.kind is FailureKind.code:
            raise
        sys.exit(1)  # the machine's failure is one line; the run's log has where it was met


def _failed(error: Exception) -> Outcome:
    return Outcome(State.failed, error_line(error), kind=kind_of(error))


def _stop_with_driver() -> None:
    """Ends a run whose driver is gone, killed perhaps, with a checkpoint: the next driver goes on with it."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
