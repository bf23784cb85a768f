"""Checks that the device is clean where a piece begins: a peak counts what others have left behind, too."""

import gc
from collections.abc import Mapping

import torch

from pmexp.bench.gpu.bench import Bench

_TOLERATED = 2**25  # bytes: a workspace of a library's, and not the activations of a step
_MIB = 2**20


def free_memory() -> None:
    """Gives back to the device what nothing refers to, and what a step out of memory has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def allocated(device: torch.device) -> int:
    """Bytes of tensors that live on a CUDA device, 0 elsewhere. Waits for the device."""
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.empty(1, device=device)  # only in its next call the allocator sees what other streams are done with
    return torch.cuda.memory_allocated(device)


class Leftovers:
    """Compares what lies on the device before the pieces of a stage, none of which shall leave anything."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._first = self._left()

    def check(self, what: str) -> None:
        """what: the piece that begins. No line where torch does not count memory."""
        left = self._left()
        if self._bench.device.type == "cuda":
            detail = f"{left / _MIB:,.0f} MiB and not {self._first / _MIB:,.0f}"
            held = abs(left - self._first) <= _TOLERATED
            self._bench.check(f"nothing is left on the device before {what}", held, detail)

    def _left(self) -> int:
        free_memory()
        if self._bench.device.type == "cuda":
            torch._C._cuda_clearCublasWorkspaces()  # one a stream, kept for as long as the process lives
            torch.cuda.empty_cache()
        return allocated(self._bench.device)


def check_starts(bench: Bench, starts: Mapping[str, int]) -> None:
    """starts: bytes on the device where each contender began, which the weights and optimizer are all of."""
    if bench.device.type != "cuda" or len(starts) < 2:
        return
    least, most = min(starts.values()), max(starts.values())
    detail = ", ".join(f"{name}: {lies / _MIB:,.0f} MiB" for name, lies in starts.items())
    what = f"the same bytes are on the device where each begins: {', '.join(starts)}"
    bench.check(what, most - least <= _TOLERATED, detail)
