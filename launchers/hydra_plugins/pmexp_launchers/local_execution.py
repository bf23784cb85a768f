"""Executes runs on this machine, some at a time, each in a process of its own, until each has an outcome."""

import os
import signal
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from hydra_plugins.pmexp_launchers.processes import Worker
from hydra_plugins.pmexp_launchers.progress import SweepProgress
from hydra_plugins.pmexp_launchers.sweep import Outcome, is_finished
from pmexp.config import RunConfig
from pmexp.errors import error_line
from pmexp.process import heard_stop_signals
from pmexp.run_folder.failure import FailureKind
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.state import State
from pmexp.shown import counted

_REFRESH_SECONDS = 0.5
_GPUS_OF_DRIVER = Path("/proc/driver/nvidia/gpus")


def execute(
    runs: Sequence[RunConfig], names: Mapping[Path, str], n_jobs: int, max_retries: int
) -> dict[Path, Outcome]:
    """Returns the outcome of each run by its folder. A stop signal lets the running ones write their
    checkpoints, then raises KeyboardInterrupt with the signal's name.

    A run that a stop signal of its own ended goes on at once; one that the machine failed is tried again
    `max_retries` times; one that another process executes is waited for. `names`: of the runs, by folder.
    """
    with SweepProgress(runs, names, n_jobs) as progress, _stop_signals_as_interrupt():
        execution = _Execution(runs, n_jobs, max_retries, progress)
        try:
            while not execution.is_over():
                execution.advance()
        except BaseException:  # else this process would wait at its end for those it has started
            execution.stop()
            raise
    return execution.outcomes


class _Execution:
    """Starts, watches and judges the workers of one sweep."""

    def __init__(
        self, runs: Sequence[RunConfig], n_jobs: int, max_retries: int, progress: SweepProgress
    ) -> None:
        self.outcomes: dict[Path, Outcome] = {}
        self._waiting = deque(runs)
        self._elsewhere: list[RunConfig] = []  # another process executes them
        self._workers: dict[int, Worker] = {}  # by sentinel
        self._retries: Counter[Path] = Counter()  # by folder
        self._n_jobs, self._max_retries, self._progress = n_jobs, max_retries, progress
        self._gpus = visible_gpus()

    def is_over(self) -> bool:
        return not (self._waiting or self._workers or self._elsewhere)

    def advance(self) -> None:
        """Starts what there is room for, and waits a moment for something to end."""
        while self._waiting and len(self._workers) < self._n_jobs:
            self._start(self._waiting.popleft())
        for sentinel in wait(list(self._workers), timeout=_REFRESH_SECONDS):
            assert isinstance(sentinel, int)
            worker = self._workers.pop(sentinel)
            self._judge(worker.run, worker.outcome())
        free = [run for run in self._elsewhere if not RunFolder(run.folder).is_claimed()]
        self._elsewhere = [run for run in self._elsewhere if run not in free]
        self._waiting.extend(free)
        self._progress.show([worker.run for worker in self._workers.values()])

    def stop(self) -> None:
        self._progress.say(f"stopping {counted(len(self._workers), 'run')} at their next step ...")
        for worker in self._workers.values():
            worker.ask_to_stop()
        for worker in self._workers.values():
            worker.stop()

    def _start(self, run: RunConfig) -> None:
        if is_finished(run):  # by another process, since the sweep began
            self._end(run, Outcome(State.finished))
        elif RunFolder(run.folder).is_claimed():
            self._wait_for(run)
        else:
            taken = {worker.slot for worker in self._workers.values()}
            slot = next(slot for slot in range(self._n_jobs) if slot not in taken)
            gpu = gpu_of(run, slot, self._gpus)
            try:
                worker = Worker(run, slot, gpu)
            except (EOFError, OSError) as error:
                reason = f"no process could be started for it ({error_line(error)})"
                self._judge(run, Outcome(State.stale, reason, kind=FailureKind.infrastructure))
                return
            self._workers[worker.sentinel] = worker
            self._progress.started(run)

    def _judge(self, run: RunConfig, outcome: Outcome) -> None:
        name = self._progress.name_of(run.folder)
        again = outcome.kind is FailureKind.infrastructure and self._retries[run.folder] < self._max_retries
        if outcome.state is State.running:
            self._wait_for(run)
        elif outcome.kind is FailureKind.interrupted:
            self._progress.say(f"{name} {outcome.error}; it goes on")
            self._waiting.append(run)
        elif again:
            self._retries[run.folder] += 1
            tried = f"{self._retries[run.folder]} of {self._max_retries}"
            self._progress.say(f"{name} {outcome.state.value}: {outcome.error}; retry {tried}")
            self._waiting.append(run)
        else:
            self._end(run, outcome)

    def _end(self, run: RunConfig, outcome: Outcome) -> None:
        self.outcomes[run.folder] = outcome
        self._progress.ended(run, outcome)

    def _wait_for(self, run: RunConfig) -> None:
        owner, name = RunFolder(run.folder).owner(), self._progress.name_of(run.folder)
        self._progress.say(
            f"{name} is executed by another process ({owner.get('host', 'just started')}, pid "
            f"{owner.get('pid', 'unknown')}); waiting for it"
        )
        self._elsewhere.append(run)


def visible_gpus() -> list[str]:
    """Indices or ids of the CUDA devices that a process of this one may use, found without CUDA."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    gpus = list(_GPUS_OF_DRIVER.iterdir()) if _GPUS_OF_DRIVER.is_dir() else []
    return [str(index) for index in range(len(gpus))]


def gpu_of(run: RunConfig, slot: int, gpus: Sequence[str]) -> str | None:
    """The one device of a run in a slot, in turn; None where it has nothing to choose or needs several."""
    return gpus[slot % len(gpus)] if len(gpus) > 1 and run.system.processes == 1 else None


@contextmanager
def _stop_signals_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    by_python = signal.SIGINT  # whose handler raises without us
    heard = [number for number in heard_stop_signals() if number is not by_python]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
