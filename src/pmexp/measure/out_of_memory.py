"""Recognises errors of running out of memory, and keeps the allocator's history for a snapshot of it."""

from pathlib import Path

import torch

_MESSAGES = (
    "DefaultCPUAllocator: ",  # "not enough memory" or "can't allocate memory": you tried to allocate ...
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",  # a kernel that is loaded when all is taken, a new context
    "Triton Error [CUDA]: out of memory",
)
_ENTRIES = 100_000  # allocations and frees that the history holds


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory is at its end: the device's, or the host's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def says_out_of_memory(line: str) -> bool:
    """Whether a line "<type>: <message>" says so, which is all that is left of an error of another
    process."""
    kind, _, message = line.partition(": ")
    return kind in (torch.OutOfMemoryError.__name__, MemoryError.__name__) or (
        kind in (RuntimeError.__name__, torch.AcceleratorError.__name__)
        and any(words in message for words in _MESSAGES)
    )


class MemoryHistory:
    """The CUDA allocator's history, for a snapshot of what was allocated and by which line of code.

    Recording costs microseconds an allocation: it is on until the steps are timed. A later snapshot has
    the blocks that are allocated then, without the lines of those allocated since. Elsewhere than on
    CUDA there is no such history, and nothing is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.recording = False

    def start(self) -> None:
        if self._cuda:
            torch.cuda.memory._record_memory_history(max_entries=_ENTRIES)
            self.recording = True

    def stop(self) -> None:
        if self.recording:
            torch.cuda.memory._record_memory_history(enabled=None)
            self.recording = False

    def dump(self, folder: Path) -> Path | None:
        """Writes the snapshot for https://pytorch.org/memory_viz; its file, None where there is none."""
        if not self._cuda:
            return None
        file = folder / "memory_snapshot.pickle"
        torch.cuda.memory._dump_snapshot(str(file))
        return file
