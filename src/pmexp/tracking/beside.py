"""Mirrors a journal from a process beside the run's: mlflow, and making its database, take seconds before the
first step, and a tracker's package takes memory that would be measured as the run's.

That process reads the status that the run ended with from its standard input, and ends without one where the
run's process was killed.
"""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from pmexp import logs
from pmexp.command_line import end_at_once
from pmexp.config import RunConfig, read_config
from pmexp.lasting_imports import lasting_imports
from pmexp.process import STOP_SIGNALS
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.mirrored import settled
from pmexp.tracking.mirror import Mirror, NoMirror, longest_end, record_lack, reference
from pmexp.tracking.tracker import Status
from pmexp.tracking.trackers import TRACKERS

_PROGRAM = f"from {__name__} import main; main()"
_START_S = 20.0  # what the process takes to start where the machine is busy
_LEAST_PRIORITY = 19


def open_mirror(config: RunConfig, folder: RunFolder) -> "Mirror | MirrorBeside | NoMirror":
    """Opens the mirror to the trackers of `tracking`, for a run that begins or goes on. It is threads where
    all packages that the trackers need are imported already, as mlflow is in the workers of a sweep, and else
    a process, which training does not wait for."""
    folder.mirrored.unlink(missing_ok=True)  # a run that goes on is not what trackers have of it any more
    if not config.tracking.trackers:
        return NoMirror()
    packages = {TRACKERS[name].package for name in config.tracking.trackers} - {None}
    return (Mirror if packages <= sys.modules.keys() else MirrorBeside)(config, folder)


class MirrorBeside:
    """Starts the process once a step is taken, which it would slow, and tells it how the run ended."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self.reference = reference(config)
        self._config, self._folder = config, folder
        self._process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Starts the process unless it runs."""
        self._process = self._process or _start(self._folder)

    def finish(self, status: Status) -> None:
        """Waits until the trackers have what the folder has, as `Mirror.finish` does."""
        process = self._process = self._process or _start(self._folder)
        try:
            process.communicate(status, timeout=_START_S + longest_end(status))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if not process.returncode:
            return
        why = f"the process that mirrors it ended with code {process.returncode}"
        for tracker in {*self._config.tracking.trackers} - settled(self._folder.mirrored):
            record_lack(self._config, self._folder, tracker, why)


def _start(folder: RunFolder) -> "subprocess.Popen[str]":
    """Starts the process, which no stop signal ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # which a process has from its parent
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(folder.path)], stdin=subprocess.PIPE, text=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> None:
    """Mirrors the run whose folder is the first argument until its status is read."""
    os.nice(_LEAST_PRIORITY)
    end_at_once()
    logs.to_terminal()
    folder = RunFolder(Path(sys.argv[1]))
    logging.getLogger("pmexp").addHandler(logs.file_handler(folder.log))
    with lasting_imports():  # the mirror waits for the first try, which makes them
        own = Mirror(read_config(folder.path / "config.yaml"), folder)
    match sys.stdin.read():
        case "FINISHED" | "FAILED" | "KILLED" as status:
            own.finish(status)
        case _:
            os._exit(0)  # the run was killed, and at an orderly exit W&B would say that it finished
