"""Measures peak memory: the CUDA allocator's on CUDA, else the process's peak resident set."""

import resource
import sys
from pathlib import Path

import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5): resets the peak resident set size


class PeakMemory:
    """Starts counting when made. `source` says what the figure is, for the run's record."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._at_least = device, 0
        self.restart()

    def reached(self, count: int) -> None:
        """Takes over the bytes that an earlier try of the same run has reached."""
        self._at_least = max(self._at_least, count)

    def begin_anew(self) -> None:
        """Resets CUDA's counter for another reader of it, and keeps the peak that it had reached."""
        self.reached(self._of_this_process())
        torch.cuda.reset_peak_memory_stats(self._device)

    def restart(self) -> None:
        """Counts from here on, where the system lets it."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self.source = "CUDA allocator, max_memory_allocated"
            return
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
            self.source = "peak resident set of the process while training (VmHWM)"
        except OSError:
            self.source = "peak resident set of the process since its start (ru_maxrss)"

    def bytes(self) -> int:
        return max(self._at_least, self._of_this_process())

    def _of_this_process(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if "VmHWM" in self.source:
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
