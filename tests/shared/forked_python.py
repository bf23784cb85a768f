"""Pythons that are forks of this process, which has imported what they need: to start one anew takes seconds.

Signals, exit codes, sessions and parents are those of a process that is started anew.
"""

import faulthandler
import inspect
import logging
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

from held_runs import Held, hold_file
from hydra_plugins.pmexp_launchers import processes as workers

_forked_parents: set[int] = set()  # process ids
_HELD_AT = 16  # step of a worker's run: a signal mostly arrives before it, in the midst of anything
_STARTED_WITH = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class ForkedPython(subprocess.Popen[str]):
    """Runs the command [<Python>, "-m", <module>, *arguments] in a fork of this process, with or without -P before
    it. It takes what Popen takes; any other command is started anew."""

    def _execute_child(self, *arguments: Any) -> None:
        given = _STARTED_WITH.bind(self, *arguments).arguments
        command = _words_after_m(given["args"])
        if command is None:
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        sys.stdout.flush(), sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            if given["start_new_session"]:
                os.setsid()
            for number, name in enumerate(("p2cread", "c2pwrite", "errwrite")):
                if given[name] != -1:
                    os.dup2(given[name], number)
            _become(command, dict(os.environ if given["env"] is None else given["env"]))
        self.pid, self._child_created = pid, True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))  # type: ignore[attr-defined]


def _words_after_m(command: Sequence[str]) -> list[str] | None:
    """The module that this Python is to run and its arguments, or None where the command is another one. A fork
    has no folder at the head of its path that -P would leave out."""
    words = [word for word in command[:2] if word != "-P"] + list(command[2:])
    return words[2:] if words[:2] == [sys.executable, "-m"] else None


def _become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Does what the command does and ends as it would, without a step back into the test."""

    def execute() -> None:
        os.environ.clear()
        os.environ.update(environment)
        module, *arguments = command
        sys.argv = [module, *arguments]
        paths = list(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))
        sys.path[:0] = paths
        _customize(paths)
        _forget_processes()
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    _close_all_but()
    _execute(execute)


def _execute(work: Callable[[], None]) -> NoReturn:
    code: Any = 1
    try:
        _forget_the_test()
        work()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _forget_the_test() -> None:
    """Signals, streams and the log are those of a Python that has just been started."""
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # which a new process inherits
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    faulthandler.disable()  # pytest's writes to a file that is closed here
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    logging.root.handlers.clear()
    warnings.resetwarnings()


def _forget_processes() -> None:
    """The parent of workers and the tracker of resources are the test's; this process forks a parent of its own."""
    for mine in (forkserver._forkserver, resource_tracker._resource_tracker):
        vars(mine).update(vars(type(mine)()))
    multiprocessing.util.spawnv_passfds = _fork_a_parent(multiprocessing.util.spawnv_passfds)


def _customize(paths: Sequence[str]) -> None:
    """Executes a sitecustomize.py at the head of PYTHONPATH, as Python does when it starts."""
    for file in (Path(path) / "sitecustomize.py" for path in paths[:1]):
        if file.is_file():
            exec(compile(file.read_text(), file, "exec"), {"__name__": "sitecustomize"})


def begin_autograd() -> None:
    """Has autograd look for devices now, where there is none. A build for CUDA else finds one of fake tensors later,
    and starts a thread for it that no fork has: each backward in a fork is then an error."""
    if not torch.cuda.is_available():
        torch.ones((), requires_grad=True).backward()


def fork_ranks(patch: pytest.MonkeyPatch) -> None:
    """Has torch's launcher fork the ranks that it would start anew."""

    def popen(handler: SubprocessHandler, args: Sequence[str], env: Mapping[str, str]) -> ForkedPython:
        assert _words_after_m(args), f"a rank that is started anew imports all for itself: {args}"
        streams = {"stdout": handler._stdout, "stderr": handler._stderr}
        return ForkedPython(args, env=env, start_new_session=True, **streams)

    patch.setattr(SubprocessHandler, "_popen", popen)


def hold_workers(patch: pytest.MonkeyPatch) -> None:
    """Has the first try at a run, in this process and its forks, wait where its `hold_file` is there."""
    from pmexp.training import run

    train = run._train

    def held(training: Any, recorder: Any, checkpoints: Any, peak: Any, stop: list[str]) -> None:
        folder = recorder.folder
        if folder.owner()["attempt"] == 1:
            hold = hold_file(folder.path.parents[1], folder.path.name.rpartition("-")[0])
            stop = Held(stop, hold, _HELD_AT)  # type: ignore[assignment]
        train(training, recorder, checkpoints, peak, stop)

    patch.setattr(run, "_train", held)


def fork_parent_of_workers() -> None:
    """Forks the parent of the launcher's workers from this process, which has imported what they need, unless there
    is such a parent; one that was started anew ends. The ranks of its workers are forks, too, and the workers' runs
    wait where a test holds them (held_runs.py). A parent that is killed is followed by one that is started anew.
    What they print past their logs is nobody's: the fork is of no test, whose output would be shown where it fails.
    """
    server: Any = forkserver._forkserver
    if server._forkserver_pid and server._forkserver_pid in _forked_parents:
        return
    server._stop()
    start = _fork_a_parent(multiprocessing.util.spawnv_passfds)
    kept = os.dup(1), os.dup(2)
    sys.stdout.flush(), sys.stderr.flush()
    with pytest.MonkeyPatch.context() as patch, open(os.devnull, "w") as nowhere:
        patch.setattr(multiprocessing.util, "spawnv_passfds", start)
        try:
            os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
            workers.preload()
        finally:
            for number, file in enumerate(kept, 1):
                os.dup2(file, number)
                os.close(file)
    _forked_parents.add(server._forkserver_pid)


def _fork_a_parent(spawn: Callable[..., int]) -> Callable[..., int]:
    """What stands in for `spawn`: multiprocessing starts the parent of workers by it, and other helpers."""

    def fork(path: str, arguments: Sequence[str], passed: Sequence[int]) -> int:
        if "forkserver" not in arguments[-1]:
            return spawn(path, arguments, passed)
        pid = os.fork()
        if pid == 0:
            _close_all_but(*passed)
            with pytest.MonkeyPatch.context() as patch:
                fork_ranks(patch)
                hold_workers(patch)
                _execute(lambda: exec(arguments[-1], {}))
        return pid

    return fork


def _close_all_but(*kept: int) -> None:
    """Closes what no new process would inherit; pytest's workers talk to their controller by such files."""
    for file in map(int, os.listdir("/dev/fd")):
        if file > 2 and file not in kept:
            with suppress(OSError):  # the listing's own is closed by now
                os.close(file)
