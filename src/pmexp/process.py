"""Says what every process of a run may use, and which signals ask it to stop."""

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

# What a terminal sends, SIGHUP at its end, and what SLURM sends, to all processes.
STOP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2)


def heard_stop_signals() -> tuple[signal.Signals, ...]:
    """Returns those of STOP_SIGNALS on which this process acts: not the end of its terminal where it was
    started to outlive that, as by nohup."""
    outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(number for number in STOP_SIGNALS if number is not signal.SIGHUP or not outlives)


@contextmanager
def stop_signals_kept() -> Iterator[None]:
    """Puts back, after code of somebody's own, what stop signals do: a module may set handlers when it is
    imported, and a run would then end without its checkpoint."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if (
                signal.getsignal(number) is not handler
                and threading.current_thread() is threading.main_thread()
            ):
                signal.signal(number, handler)


@contextmanager
def stop_signals_waiting() -> Iterator[None]:
    """Has stop signals wait for the end of the block; the processes started in it never hear of them. Does
    nothing in any thread but the main one, which alone hears of signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda met, _: arrived.append(met)) for number in STOP_SIGNALS}
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # which a process has from its parent
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for met in arrived:  # by way of another thread, in which signals are not blocked
            signal.raise_signal(met)


def usable_cores() -> int:
    """Returns how many cores this process may use, at least 1: those it is bound to, or a container's quota,
    rounded up."""
    quota = cpu_quota()
    return _bound_cores() if quota is None else min(_bound_cores(), max(1, math.ceil(quota)))


def cores_of_each(processes: int) -> int:
    """Returns how many cores each of a run's `processes` has: all that it may use, where srun bound it.

    A container's quota is shared by all of them.
    """
    usable, bound = usable_cores(), _bound_cores()
    here = os.environ.get("LOCAL_WORLD_SIZE")  # which launchers of torch set
    is_bound = here is None and usable == bound < (os.cpu_count() or 1)
    return usable if is_bound else usable // int(here or processes)


def cpu_quota(process: Path = Path("/proc/self")) -> float | None:
    """Returns how many cores' time Linux's control groups give this process; None where they set no limit.

    The least counts, of its own group and the groups around it, as far as a container shows them.
    process: the folder in which Linux describes it.
    """
    quotas = []
    for group in _control_groups(process):
        words = _text(group / "cpu.max").split()  # version 2 has both in one file
        words = words or [
            *_text(group / "cpu.cfs_quota_us").split(),
            *_text(group / "cpu.cfs_period_us").split(),
        ]
        if words and words[0] not in ("max", "-1"):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _control_groups(process: Path) -> Iterator[Path]:
    """Yields the folders of the process's groups for processor time, and of those around them."""
    paths: dict[str, PurePath] = {}
    for line in _text(process / "cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), PurePath(group))  # version 2 names none: ""
    for line in _text(process / "mountinfo").splitlines():
        mount, _, kind = line.partition(" - ")
        root, folder = mount.split()[3:5]
        system, *_, options = kind.split()
        controller = "" if system == "cgroup2" else "cpu"
        if system == "cgroup2" or (system == "cgroup" and "cpu" in options.split(",")):
            path = paths.get(controller, PurePath(root))
            # A container may be shown its own group alone, as the root, under a path of the machine's.
            own = Path(folder) / (path.relative_to(root) if path.is_relative_to(root) else "")
            yield from (group for group in (own, *own.parents) if group.is_relative_to(folder))


def _text(file: Path) -> str:
    """Returns what the file holds: nothing where this system has no such file."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _bound_cores() -> int:
    """Returns how many cores this process may be put on: all of the machine's where nothing says fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
