"""A stage that dies by a signal, in the middle of a line."""

import os
import signal

from pmexp.bench.gpu.bench import Bench


def measure(bench: Bench) -> None:
    bench.note("the last words")
    bench._findings.write('{"kind": "note", "te')
    bench._findings.flush()
    os.kill(os.getpid(), signal.SIGSEGV)
