"""A rank ends with its launcher, also with one that is gone before the rank looks for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pmexp.errors import UserError
from pmexp.training.stop_signals import stop_requests

SLEEPER = """
import os, sys, threading
from pmexp.training.stop_signals import stop_with_parent
look, looks, twice = os.getppid, [], threading.Event()
def counted():
    looks.append(look())
    len(looks) > 1 and twice.set()
    return looks[-1]
os.getppid = counted
stop_with_parent(int(sys.argv[1]), grace_s=60)
sys.exit(not twice.wait(100))
"""


@pytest.mark.parametrize(
    ("parent", "code"), [(os.getpid, 0), (lambda: -1, -signal.SIGTERM)], ids=["there", "gone"]
)
def test_a_process_whose_parent_is_gone_is_asked_to_stop(parent: Callable[[], int], code: int) -> None:
    command = [sys.executable, "-c", SLEEPER, str(parent())]
    assert subprocess.run(command, timeout=120).returncode == code


def test_a_run_in_a_thread_is_refused_since_no_signal_reaches_it() -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(UserError, match=r"^a run needs the main thread"):
        threads.submit(stop_requests().__enter__).result()
