"""Put in the path of jobs as sitecustomize.py: halts a run at a step boundary, once, where a file asks for it.

`$PMEXP_TEST_HOLDS/<name>` is renamed to `<name>.held`, with the run's process in it, when the run is there; a
signal lets it go on. The name is the job, its index in the array and the rank; of runs that share a job, which
are processes of their own, variant and seed.
"""

import multiprocessing
import os
import time
from collections import UserList
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = 4


class _Held(UserList[str]):
    """The stop signals that a run has got, looked at between two steps."""

    def __init__(self, received: list[str]) -> None:
        super().__init__()
        self.data, self._looks = received, 0

    def __bool__(self) -> bool:
        self._looks += 1
        hold = _hold()
        if self._looks == _STEP and hold.is_file():
            hold.write_text(str(os.getpid()))
            hold.rename(hold.with_suffix(".held"))
            while not self.data:
                time.sleep(0.02)
        return bool(self.data)


def _hold() -> Path:
    process = multiprocessing.current_process().name
    if process != "MainProcess":
        name = process.rpartition("-")[0]
    else:
        parts = (os.environ.get(f"SLURM_{key}") for key in ("JOB_NAME", "ARRAY_TASK_ID", "PROCID"))
        name = "-".join(part for part in parts if part is not None)
    return Path(os.environ["PMEXP_TEST_HOLDS"]) / name


def _hold_runs() -> None:
    from pmexp.training import stop_signals

    original = stop_signals.stop_requests

    @contextmanager
    def stop_requests() -> Iterator[_Held]:
        with original() as received:
            yield _Held(received)

    stop_signals.stop_requests = stop_requests


if "PMEXP_TEST_HOLDS" in os.environ and "SLURM_JOB_ID" in os.environ:
    _hold_runs()
