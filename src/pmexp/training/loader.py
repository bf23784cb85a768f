"""Makes batches ahead of the steps that take them, in worker processes beside the training.

A worker is forked, so that nothing is imported or copied again. It makes a batch from its number alone and
hands it over in shared memory. How many workers there are changes no bit of a batch. They ignore stop
signals, which are the run's to heed, and end with the run's process, however that ends.

A thread of the run's process takes the next batch from the workers while a step runs, and copies it into
memory of this process, so that a step finds its batch ready.
"""

import atexit
import ctypes
import mmap
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pmexp.datasets.pictures import listen
from pmexp.errors import MachineError, UserError, error_line, first_line
from pmexp.models.examples import Batch, Examples, MaskedTokens, PictureExamples
from pmexp.models.image_text import CaptionedExamples
from pmexp.process import STOP_SIGNALS, cores_of_each

Make = Callable[[int], list[Batch]]  # batches from their number
_Promise = Future[list[Batch]]

_MOST = 16  # workers where nobody says how many: more seldom pay
_NOTE = 512  # bytes of a worker's note
_FULL = "/dev/shm may be full: make it larger, or set train.workers=0"
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl
_PATIENCE_S = 5  # with a worker in the midst of a batch that nobody wants any more


def workers_for(examples: Examples, device: torch.device, processes: int) -> int:
    """Returns how many workers pay. processes: how many the run has.

    Pictures take every core but the one that trains. Taking a batch from a worker costs the training thread a
    millisecond, more than to copy rows that are in memory; tokens that are masked row by row cost more, and
    take one worker beside a GPU. On the CPU it would only take the step's own core.
    """
    if decodes(examples):
        return max(1, min(_MOST, cores_of_each(processes) - 1))
    return int(device.type == "cuda" and isinstance(examples, MaskedTokens))


def decodes(examples: Examples) -> bool:
    """Whether pictures are decoded for each batch."""
    return isinstance(examples, PictureExamples) or (
        isinstance(examples, CaptionedExamples) and examples.decodes
    )


@contextmanager
def batches_ahead(
    make: Make, numbers: Sequence[int], workers: int, device: torch.device
) -> Iterator[Iterator[list[Batch]]]:
    """Opens a context whose iterator gives `make` of each number, in order; without workers it is called when
    asked.

    For a CUDA device batches lie in pinned memory. The iterator raises UserError for what `make` raises as
    one, and where a worker crashed at a picture; MachineError where the machine ended a worker.
    """
    if not workers or not numbers:
        yield map(make, numbers)
        return
    ahead = _Ahead(make, numbers, min(workers, len(numbers)), device.type == "cuda")
    try:
        yield ahead
    finally:
        ahead.close()


def ready(batches: Iterator[list[Batch]]) -> list[Tensor]:
    """Returns the tensors of the next batch, which this process holds already; it waits for the workers.

    Returns none where there are no workers, and where there is no next batch.
    """
    return batches.ready() if isinstance(batches, _Ahead) else []


@dataclass(frozen=True)
class _Failed:
    """What a worker hands over in the place of batches."""

    line: str
    kind: type[Exception]  # what is raised of it
    trace: str = ""


class _Made(Dataset[Any]):
    def __init__(self, make: Make) -> None:
        self._make = make

    def __getitem__(self, number: int) -> list[Batch] | _Failed:
        try:
            return _shared(self._make(number))
        except UserError as error:
            return _Failed(str(error), UserError)
        except MachineError as error:
            return _Failed(str(error), MachineError)
        except Exception as error:
            return _Failed(error_line(error), RuntimeError, traceback.format_exc())


def _shared(batches: list[Batch]) -> list[Batch]:
    """Puts batches into shared memory here, since the queue's own thread would lose an error."""
    try:
        return [batch.each(Tensor.share_memory_) for batch in batches]
    except RuntimeError as error:
        said = f"a worker that makes batches got no shared memory ({first_line(error)})"
        raise MachineError(f"{said}; {_FULL}") from None


class _Ahead:
    """Iterates over what workers make."""

    def __init__(self, make: Make, numbers: Sequence[int], workers: int, pinned: bool) -> None:
        self._notes = _Notes(workers)
        self._pinned = pinned
        with _own_child_handler(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="This DataLoader will create"
            )  # more than there are cores
            self._iterator: Any = iter(
                DataLoader(
                    _Made(make),
                    batch_size=None,
                    sampler=numbers,
                    num_workers=workers,
                    collate_fn=_same,
                    pin_memory=pinned,
                    worker_init_fn=partial(_begin, os.getpid(), self._notes),
                    multiprocessing_context="fork",
                    generator=torch.Generator(),  # it draws a seed: not from the run's own numbers
                )
            )
        self._asked: SimpleQueue[_Promise | None] = SimpleQueue()
        threading.Thread(target=self._take, name="next batch", daemon=True).start()
        self._next = self._ask()
        atexit.register(self.close)  # before torch's own, which waits for workers that nobody has told to end

    def __iter__(self) -> "_Ahead":
        return self

    def __next__(self) -> list[Batch]:
        batches = self._next.result()
        self._next = self._ask()
        return batches

    def ready(self) -> list[Tensor]:
        batches = [] if self._next.exception() else self._next.result()
        return [tensor for batch in batches for tensor in (*batch.inputs.values(), batch.labels)]

    def _ask(self) -> _Promise:
        promise: _Promise = Future()
        self._asked.put(promise)
        return promise

    def _take(self) -> None:
        """Keeps promises, in a thread of its own, until it is asked for nothing."""
        while (promise := self._asked.get()) is not None:
            try:
                promise.set_result(self._taken())
            except Exception as error:  # StopIteration among them
                promise.set_exception(error)

    def _taken(self) -> list[Batch]:
        """Returns the next batch in memory of this process."""
        try:
            made = next(self._iterator)
        except RuntimeError as error:
            raise self._died() or error from None
        if not isinstance(made, _Failed):
            batches: list[Batch] = made
            if self._pinned:
                return batches
            return [batch.each(Tensor.clone) for batch in batches]
        if not made.trace:
            raise made.kind(made.line)
        raise made.kind(f"a worker that makes batches failed: {made.line}\n{made.trace}")

    def _died(self) -> Exception | None:
        """Says of the first worker that is gone what ended it, and at which picture."""
        gone = [(n, worker) for n, worker in enumerate(self._iterator._workers) if not worker.is_alive()]
        if not gone:
            return None
        number, worker = gone[0]
        code = worker.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        at = self._notes.read(number)
        said = f"a worker that makes batches was ended by {cause}" + (f" while it read {at}" if at else "")
        if code == -signal.SIGKILL:
            return MachineError(f"{said}; the machine may lack memory: set train.workers to fewer")
        if code == -signal.SIGBUS:
            return MachineError(f"{said}; {_FULL}")
        advice = "remove that file or save it anew, or set" if at else "set"
        return UserError(f"{said}; {advice} train.workers=0")

    def close(self) -> None:
        """Ends the workers; one in the midst of a batch makes it first. The batch that was next is let go."""
        atexit.unregister(self.close)
        self._asked.put(None)
        wait([self._next], _PATIENCE_S)
        self._next = Future()
        self._next.set_exception(StopIteration())
        workers = self._iterator._workers
        self._iterator._shutdown_workers()  # its only other way is to be forgotten, and tracebacks keep it
        for worker in workers:
            worker.kill()  # what hangs in a read; they ignore the SIGTERM that torch has sent


class _Notes:
    """A line from each worker to the process that made it, which outlives the worker."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, workers * _NOTE)

    def write(self, worker: int, line: str) -> None:
        start = worker * _NOTE
        self._memory[start : start + _NOTE] = line.encode(errors="replace")[:_NOTE].ljust(_NOTE, b"\0")

    def read(self, worker: int) -> str:
        start = worker * _NOTE
        return self._memory[start : start + _NOTE].rstrip(b"\0").decode(errors="replace")


def _begin(parent: int, notes: _Notes, worker: int) -> None:
    """Prepares a worker: it ends with its parent, and not by what is sent to all processes of a job."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere torch's own look at the parent, every 5 s, has to do
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    listen(partial(notes.write, worker))


@contextmanager
def _own_child_handler() -> Iterator[None]:
    """Undoes torch's handler of SIGCHLD, which raises wherever the run happens to be when a worker dies; the
    next batch that is asked for raises instead."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)


def _same(made: Any) -> Any:
    return made
