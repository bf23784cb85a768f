"""Starts the processes of a run here with torch's elastic launcher, and says what became of them."""

import json
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # where it is documented
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pmexp.config import RunConfig
from pmexp.errors import Interrupted, RankFailed, RankOutOfMemory, RunClaimed, UserError
from pmexp.measure.out_of_memory import says_out_of_memory
from pmexp.process import heard_stop_signals
from pmexp.run_folder.failure import FailureKind, kind_in_text
from pmexp.run_folder.folder import RunFolder
from pmexp.systems.ranks import started_processes

log = logging.getLogger(__name__)

_ENTRY = "pmexp.training.rank"
# A rank has so long from a stop signal, or another rank's failure, to its end by force: a checkpoint fits in.
_GRACE_SECONDS = 300


def is_launcher(config: RunConfig) -> bool:
    """Whether this process has to start the run's processes; it has not where it is one of them."""
    return config.system.processes > 1 and started_processes() is None


def launch(config: RunConfig, capture_output: bool) -> None:
    """Executes the run on `system.processes` processes and returns when all are done.

    Raises UserError, RunClaimed and Interrupted as the run on one process does, RankFailed, and
    RankOutOfMemory where memory did not suffice to build the run.
    """
    # What elastic logs of a failure is raised here as an error.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does; train.threads sets it in each process
    # The static rendezvous, enough for one node, shares this store by its port, which is free for certain.
    store = TCPStore("localhost", 0, is_master=True, multi_tenant=True)
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=config.system.processes,
        run_id=config.run_id,
        rdzv_backend="static",
        rdzv_endpoint=f"localhost:{store.port}",
        rdzv_configs={"rank": 0},
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        signals_to_handle=",".join(number.name for number in heard_stop_signals()),
        **_grace(),
    )
    arguments = [
        *("-P", "-m"),  # own code is found all the same, and a file named like one of Python's hides none
        _ENTRY,
        json.dumps(config.to_dict()),
        str(os.getpid()),
        *(["--capture-output"] if capture_output else []),
    ]
    try:
        elastic_launch(settings, sys.executable)(*arguments)
    except SignalException as stop:
        name = signal.Signals(stop.sigval).name
        raise Interrupted(f"{name}; run the same command to go on") from None
    except ChildFailedError as failed:
        _raise(RunFolder(config.folder), failed.failures)


def _grace() -> dict[str, Any]:
    """The key of LaunchConfig for the seconds of grace. Up to torch 2.11 it has none: there they become the
    default of what ends the ranks, which its agent calls without a time."""
    if "shutdown_timeout" in LaunchConfig.__dataclass_fields__:
        return {"shutdown_timeout": _GRACE_SECONDS}
    PContext.close.__defaults__ = (None, _GRACE_SECONDS)
    return {}


def _raise(folder: RunFolder, failures: dict[int, ProcessFailure]) -> None:
    """Raises the error of the rank that ended the run: a killed one, or the first whose error is on record.

    Returns where a rank was out of memory: that is the run's result, and what the others said of it is not.
    """
    if error := folder.out_of_memory():
        log.error("%s is out of memory, which is its result: %s", folder.path.name, error)
        folder.failure.unlink(missing_ok=True)
        return
    killed = {r: f for r, f in failures.items() if f.exitcode < 0 and f.exitcode != -signal.SIGTERM}
    rank, failure = min((killed or failures).items())
    kind, _, text = _message(failure).partition(": ")
    if kind == UserError.__name__:
        raise UserError(text)
    if kind == RunClaimed.__name__:  # what is on record there is another process's
        raise RunClaimed(text)
    if kind == Interrupted.__name__:
        raise Interrupted(text)
    if not killed and says_out_of_memory(_message(failure)):
        raise RankOutOfMemory(_message(failure))
    if killed:  # the others only saw a lost connection
        folder.failure.unlink(missing_ok=True)
    line = f"rank {rank}: {_message(failure)}"
    if not folder.failure.is_file():
        if rank:
            folder.log = folder.path / f"rank{rank}.txt"
        with suppress(OSError):  # a full disk, perhaps the reason itself
            folder.fail(FailureKind.infrastructure if killed else kind_in_text(line), line)
    raise RankFailed(f"{folder.path.name} failed: {folder.failed().get('error', line)}")


def _message(failure: ProcessFailure) -> str:
    """Returns what the rank raised, or how it ended."""
    message: Any = failure.message
    return str(message["message"] if isinstance(message, dict) else message).strip().splitlines()[0]
