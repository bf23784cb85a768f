"""Put in the path of jobs as sitecustomize.py: halts a run at a step boundary, once, where a file asks for it.

`$PMEXP_TEST_HOLDS/<name>` is renamed to `<name>.held`, with the run's process in it, when the run is there; a
signal lets it go on. The name is the job, its index in the array and the rank; of runs that share a job, which
are processes of their own, variant and seed.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = 4


def _hold() -> Path:
    process = multiprocessing.current_process().name
    if process != "MainProcess":
        name = process.rpartition("-")[0]
    else:
        parts = (os.environ.get(f"SLURM_{key}") for key in ("JOB_NAME", "ARRAY_TASK_ID", "PROCID"))
        name = "-".join(part for part in parts if part is not None)
    return Path(os.environ["PMEXP_TEST_HOLDS"]) / name


def _hold_runs() -> None:
    from held_runs import Held
    from pmexp.training import stop_signals

    original = stop_signals.stop_requests

    @contextmanager
    def stop_requests() -> Iterator[Held]:
        with original() as received:
            yield Held(received, _hold(), _STEP)

    stop_signals.stop_requests = stop_requests


if "PMEXP_TEST_HOLDS" in os.environ and "SLURM_JOB_ID" in os.environ:
    _hold_runs()
