"""Executes a command in a process of its own and says what it took."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from pmexp.errors import ContenderFailed


@dataclass(frozen=True)
class Executed:
    """What a process took and said."""

    started: float  # seconds since 1970
    cpu_s: float  # CPU time, that of the processes it waited for included
    stdout: str


def execute(arguments: Sequence[str], folder: Path) -> Executed:
    """Executes ``python <arguments>`` in `folder`. Raises ContenderFailed where it does not end with 0.

    It may keep compiled modules, as installed packages have them, whatever this process may: pmexp would else
    be compiled in each process where it runs from its sources, and the other packages not.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        started = time.time()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=stdout, stderr=stderr
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode:
            last = (stderr.read().strip() or "it said nothing").splitlines()[-1]
            raise ContenderFailed(f"python {' '.join(arguments)}: exit code {process.returncode}: {last}")
        return Executed(started, used.ru_utime + used.ru_stime, stdout.read())
