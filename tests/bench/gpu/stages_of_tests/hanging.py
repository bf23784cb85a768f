"""A stage that no signal but a kill ends, like a kernel that never returns, with a process of its own."""

import signal
import subprocess
import time

from pmexp.bench.gpu.bench import Bench


def measure(bench: Bench) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    bench.note(f"child {child.pid}")
    time.sleep(600)
