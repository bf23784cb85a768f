"""The core's threads: any number gives the same bits, Python's threads call at once, and forks make their own."""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core_cases import (
    BACKENDS,
    LARGE,
    assert_same,
    each_backend,
    each_width,
    needs_core,
    values,
)
from pmexp.packed_dropout import cpu

pytestmark = [needs_core, pytest.mark.usefixtures("two_threads")]


@each_backend
@each_width
def test_bits_do_not_depend_on_the_number_of_threads(backend: str, bits: int) -> None:
    core, seed, x = cpu.Core(backend), torch.tensor([13]), values((LARGE,), torch.float32)
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        y, packed = core.packed_dropout(x, seed, 0.2, bits)
        again = core.apply_packed_mask(x, packed, 0.2, bits)
        results.append((y, packed, again, core.unpack_bits(packed, x.shape, bits)))
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            assert_same(actual, expected)


@each_backend
def test_python_threads_call_at_once(backend: str) -> None:
    core, x = cpu.Core(backend), values((LARGE,), torch.float32)
    expected = [core.packed_dropout(x, torch.tensor([seed]), 0.2, 1) for seed in range(4)]
    wrong: list[int] = []

    def call(seed: int) -> None:
        torch.set_num_threads(3)
        for _ in range(25):
            y, packed = core.packed_dropout(x, torch.tensor([seed]), 0.2, 1)
            if not (torch.equal(y, expected[seed][0]) and torch.equal(packed, expected[seed][1])):
                wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert wrong == []


def test_bits_do_not_depend_on_whose_threads_work() -> None:
    """They are those of torch's OpenMP team, where the core found one, or the core's own."""
    library, team = cpu.core._library(), cpu.core.torchs_openmp()
    assert library is not None
    assert (team is not None) == (sys.platform == "linux")
    core, x = cpu.Core(BACKENDS[0]), values((LARGE,), torch.float32)
    before = core.packed_dropout(x, torch.tensor([3]), 0.3, 1)
    library.pmexp_use_openmp(None)
    try:
        after = core.packed_dropout(x, torch.tensor([3]), 0.3, 1)
    finally:
        library.pmexp_use_openmp(team)
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


def exit_code_of_fork(work: Callable[[], bool]) -> int:
    """Runs work() in a forked child. 0: it returned True; a child that hangs is killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork() beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the forked child hangs")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads of a process in /proc")
def test_a_forked_child_makes_its_own_threads() -> None:
    core, seed, x = cpu.Core(BACKENDS[0]), torch.tensor([21]), values((LARGE,), torch.float32)
    y, packed = core.packed_dropout(x, seed, 0.2, 1)
    child_y, child_packed = torch.zeros_like(y), torch.zeros_like(packed)

    def work() -> bool:
        before = len(os.listdir("/proc/self/task"))
        core.dropout_into(child_y, child_packed, x, seed, 0.2, 1)
        after = len(os.listdir("/proc/self/task"))
        # numpy, since torch's own OpenMP threads do not survive a fork.
        same = bool((child_y.numpy() == y.numpy()).all() and (child_packed.numpy() == packed.numpy()).all())
        return same and (before, after) == (1, 2)

    assert exit_code_of_fork(work) == 0


def test_a_fork_in_the_middle_of_another_threads_call() -> None:
    core, seed, x = cpu.Core(BACKENDS[0]), torch.tensor([22]), values((LARGE,), torch.float32)
    y, packed = core.packed_dropout(x, seed, 0.2, 1)
    stop = threading.Event()

    def keep_calling() -> None:
        while not stop.is_set():
            core.dropout_into(y, packed, x, seed, 0.2, 1)

    expected = packed.numpy().copy()
    child_y, child_packed = torch.zeros_like(y), torch.zeros_like(packed)

    def work() -> bool:
        core.dropout_into(child_y, child_packed, x, seed, 0.2, 1)
        return bool((child_packed.numpy() == expected).all())

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        codes = [exit_code_of_fork(work) for _ in range(20)]
    finally:
        stop.set()
        caller.join()
    assert codes == [0] * 20
