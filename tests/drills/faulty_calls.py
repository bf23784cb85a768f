"""System calls that fail, or at which the process dies: faulty_calls.c, built and told what to do.

The library has to be there when the process starts (LD_PRELOAD); a process forked from such a one arms it.
"""

import ctypes
import errno
import os
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class Call(IntEnum):
    """What a process asks of the file system, below one folder."""

    write = 0
    rename = 1
    sync = 2
    open = 3  # that may make the file
    unlink = 4  # files and folders are removed by it
    mkdir = 5
    truncate = 6
    lock = 7


class What(IntEnum):
    """What becomes of the chosen call."""

    nothing = 0
    fails = 1
    kills = 2  # in its place
    torn = 3  # half of it is done, then the process is killed
    full = 4  # half of it is done, and from then on nothing has room
    gone = 5  # it and all after it fail


@dataclass(frozen=True)
class Fault:
    call: Call
    number: int  # counts the calls of its kind, from 1
    what: What
    error: int  # errno

    def __str__(self) -> str:
        how = f" with {errno.errorcode[self.error]}" if self.what in (What.fails, What.gone) else ""
        return f"{self.call.name} {self.number} {self.what.name}{how}"


NO_FAULT = Fault(Call.write, 0, What.nothing, 0)


@dataclass(frozen=True)
class Met:
    """A call that a process made, in the order of its calls."""

    call: Call
    was_hurt: bool
    path: Path


def build(folder: Path) -> Path:
    """The library, compiled into `folder`."""
    library = folder / "faulty_calls.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def environment(folder: Path) -> dict[str, str]:
    """What a process has to be started with so that it can be armed; the library is built into `folder`."""
    no_git = {"GIT_DIR": "/dev/null"}  # somebody may work on the source meanwhile
    return os.environ | no_git | {"LD_PRELOAD": str(build(folder))}


def arm(below: Path, fault: Fault, trace: Path) -> None:
    """Hurts this process at `fault` and writes down every call that it makes below a folder."""
    descriptor = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    library = ctypes.CDLL(None)
    number = ctypes.c_long(fault.number)
    library.faulty_calls_arm(os.fsencode(below), descriptor, fault.call, number, fault.what, fault.error)


def met(trace: Path) -> list[Met]:
    """What arm() had written down."""
    lines = (line.split(" ", 2) for line in trace.read_text().splitlines())
    return [Met(Call[name], was_hurt == "1", Path(path)) for name, was_hurt, path in lines]


def unsynced(calls: list[Met]) -> list[Path]:
    """Renamed files whose folder was not synced before a file of another folder was renamed, by one that relies
    on it perhaps: without power the name is lost."""
    unsynced_files: list[Path] = []
    waiting: list[Path] = []
    for one in calls:
        if one.call is Call.sync:
            waiting = [file for file in waiting if file.parent != one.path]
        elif one.call is Call.rename:
            unsynced_files += [file for file in waiting if file.parent != one.path.parent]
            waiting = [file for file in waiting if file.parent == one.path.parent] + [one.path]
    return unsynced_files + waiting


def faults_at(call: Call, number: int) -> list[Fault]:
    """Every fault that one call can meet."""
    each = [Fault(call, number, What.kills, 0)]
    if call is Call.lock:
        return [
            *each,
            Fault(call, number, What.fails, errno.ENOLCK),
            Fault(call, number, What.fails, errno.EIO),
        ]
    each += [Fault(call, number, What.fails, code) for code in (errno.ENOSPC, errno.EIO)]
    each.append(Fault(call, number, What.gone, errno.EIO))
    if call is Call.write:
        each += [Fault(call, number, What.torn, 0), Fault(call, number, What.full, errno.ENOSPC)]
    return each
