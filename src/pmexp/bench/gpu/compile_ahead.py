"""Has the kernels of the correctness checks compiled by several processes before the checks run.

A cold cache costs the stage about a second a kernel, and it needs some hundred. Several processes beside each
other, while nothing is timed, take that time off it; what they do not reach is compiled where it is needed.
"""

import subprocess
import sys
import time
from contextlib import suppress

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.process import usable_cores

_MOST_PROCESSES = 14
_SHARE, _MOST_SECONDS = 0.5, 30.0  # the share of the stage's time that it waits for them at most
_BUILD = "from pmexp.packed_dropout.native.build import library; library()"  # which says later why it cannot


def compile_ahead(bench: Bench) -> None:
    """Has the kernels of the stage `correctness` compiled by as many processes as there are cores, and the
    library of the stage `native_calls` built beside them and the checks, which does not wait for it.

    On the CPU, where there is nothing to compile, it does nothing."""
    if bench.device.type != "cuda":
        return
    started, most = time.monotonic(), min(_MOST_SECONDS, _SHARE * bench.budget.left)
    subprocess.Popen([sys.executable, "-c", _BUILD], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes = max(1, min(_MOST_PROCESSES, usable_cores() - 1))
    done = run_shares(bench.device.type, "tiny" if bench.tiny else "full", processes, most)
    took = time.monotonic() - started
    bench.note(f"kernels compiled ahead: {took:.0f} s, {done} of {processes} processes came to their end")


def run_shares(device: str, size: str, processes: int, seconds: float) -> int:
    """Runs all shares beside each other for `seconds` at most; how many came to their end."""
    command = [sys.executable, "-m", "pmexp.bench.gpu.compile_share", device, size]
    budget = Budget(seconds)
    running = [
        subprocess.Popen(
            [*command, str(place), str(processes), f"{seconds:.1f}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what is wrong with a check, the check itself says later
        )
        for place in range(processes)
    ]
    try:
        with suppress(subprocess.TimeoutExpired):
            for process in running:
                process.wait(max(0.0, budget.left))
        return sum(process.poll() == 0 for process in running)
    finally:
        for process in running:
            process.kill()
            process.wait()
