"""`python -m <module>` as a fork of this process, which has imported what the module needs: seconds each.

Signals, exit codes, sessions and parents are those of a process that is started anew.
"""

import logging
import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler


class ForkedPython(subprocess.Popen[str]):
    """Runs the command [<Python>, "-m", <module>, *arguments] with the given environment. What it says goes where
    this process's output goes; with `log`, errors go into that file."""

    def __init__(
        self,
        args: Sequence[str],
        env: Mapping[str, str],
        start_new_session: bool = False,
        log: Path | None = None,
    ) -> None:
        self._environment, self._own_session, self._log = dict(env), start_new_session, log
        super().__init__(args, env=env)

    def _execute_child(self, args: Sequence[str], *_: Any) -> None:
        sys.stdout.flush(), sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            if self._own_session:
                os.setsid()
            if self._log:
                os.dup2(os.open(self._log, os.O_WRONLY | os.O_CREAT), 2)
            _become(list(args), self._environment)
        self.pid, self._child_created = pid, True


def _become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Does what the command does and ends as it would, without a step back into the test."""
    code: Any = 1
    try:
        _forget_the_test()
        os.environ.clear()
        os.environ.update(environment)
        _, _, module, *arguments = command
        sys.argv = [module, *arguments]
        _customize(environment.get("PYTHONPATH", ""))
        runpy.run_module(module, run_name="__main__", alter_sys=True)
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
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    logging.root.handlers.clear()
    warnings.resetwarnings()


def _customize(paths: str) -> None:
    """Executes a sitecustomize.py at the head of PYTHONPATH, as Python does when it starts."""
    file = Path(paths.partition(os.pathsep)[0]) / "sitecustomize.py"
    if paths and file.is_file():
        exec(compile(file.read_text(), file, "exec"), {"__name__": "sitecustomize"})


def fork_ranks(patch: pytest.MonkeyPatch) -> None:
    """Has torch's launcher fork the ranks that it would start anew."""

    def popen(_: SubprocessHandler, args: Sequence[str], env: Mapping[str, str]) -> ForkedPython:
        return ForkedPython(args, env, start_new_session=True)

    patch.setattr(SubprocessHandler, "_popen", popen)
