"""Executes the runs of a job on its node, inside submitit's process, and requeues the job.

SIGUSR2 (time limit, preemption, `scancel --signal=USR2`) stops the run with a checkpoint, and the job asks to
be queued again under the same id. SIGTERM stops it the same way and no more: SLURM itself queues a preempted
job again, and who has cancelled it wants it to end.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import DelayedSubmission

from hydra_plugins.pmexp_launchers import slurm_commands
from hydra_plugins.pmexp_launchers.slurm_commands import SlurmError
from hydra_plugins.pmexp_launchers.sweep import is_finished
from pmexp import logs
from pmexp.config import RunConfig, from_dict
from pmexp.errors import Interrupted, Preempted, RunClaimed, UserError, error_line
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.run_folder.folder import RunFolder

log = logging.getLogger("pmexp")

_STALLED_STARTS = 5  # in a row without a new checkpoint: the next would be lost as well
_CLAIM_SECONDS = 180.0  # a file server keeps the lock of a dead node for about 90


@dataclass
class SlurmJob:
    """The callable that submitit pickles. Several runs go through the local launcher, `n_jobs` at a time."""

    runs: Sequence[dict[str, Any]]  # as RunConfig.to_dict gives them
    n_jobs: int
    time_min: int

    def __call__(self) -> None:
        logs.mask_output()
        logs.to_terminal()
        job = JobEnvironment()
        first = job.global_rank == 0
        runs = [run for run in map(from_dict, self.runs) if not is_finished(run)]
        if first and runs:
            for run in runs:
                _await_claim(RunFolder(run.folder))
                RunFolder(run.folder).failure.unlink(missing_ok=True)  # it tells of an earlier start
            self._check_progress(job.paths.folder / f"{job.job_id}_starts.jsonl", runs)
        code = 0
        try:
            if len(self.runs) > 1:
                _execute_packed(runs, self.n_jobs)
            elif runs:
                code = _execute(runs[0])
        except Preempted as stop:
            if first:
                log.info("%s: job %s asks to be queued again", stop, job.job_id)
                _requeue(job.job_id)
        except Interrupted as stop:
            log.info("%s", stop)
        _end(code)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit starts again after a SIGUSR2 that came while the run's own handler was not there."""
        return DelayedSubmission(self)

    def _check_progress(self, starts: Path, runs: Sequence[RunConfig]) -> None:
        """Notes this start of the job. Where starts lead nowhere, records the runs as failed and exits."""
        kept = json.dumps({run.run_id: _checkpoints(RunFolder(run.folder)) for run in runs})
        with starts.open("a+", encoding="utf-8") as stream:
            stream.write(kept + "\n")
            stream.seek(0)
            noted = stream.read().splitlines()
        latest = noted[-_STALLED_STARTS:]
        if len(latest) < _STALLED_STARTS or len(set(latest)) > 1:
            return
        said = (
            f"SLURM has started the job {_STALLED_STARTS} times without a new checkpoint in between; raise "
            f"hydra.launcher.time_min={self.time_min}, or lower checkpoint.every_s"
        )
        for run in runs:
            RunFolder(run.folder).fail(FailureKind.code, said)
        log.error("%s", said)
        sys.exit(1)


def _execute(run: RunConfig) -> int:
    """Executes one run in this process, or a rank of it, and returns the exit code. Whatever ends it is on
    record then."""
    from pmexp.measure.out_of_memory import is_out_of_memory
    from pmexp.training import run as experiment

    try:
        experiment.run(run, capture_output=True)
    except RunClaimed as claimed:
        log.warning("%s", claimed)
    except UserError as error:
        log.error("%s", error)
        RunFolder(run.folder).fail(FailureKind.code, str(error))
        return 2
    except Interrupted:
        raise
    except Exception as error:
        log.exception("%s", run.run_id)
        if is_out_of_memory(error) and not is_finished(run):
            with suppress(RunClaimed):  # another rank has it, and says the same
                experiment.record_out_of_memory(run, error_line(error))
        with suppress(OSError):  # a full disk: what the job printed says so, and the driver tries it again
            RunFolder(run.folder).fail(kind_of(error), error_line(error))
        return 1
    return 0


def _execute_packed(runs: Sequence[RunConfig], n_jobs: int) -> None:
    """Executes each run in a process of its own, and leaves on record what the local launcher would say."""
    from hydra_plugins.pmexp_launchers import local_execution, processes
    from hydra_plugins.pmexp_launchers.sweep import names_of

    processes.preload()
    names = names_of({run.folder: run for run in runs})
    try:
        outcomes = local_execution.execute(runs, names, n_jobs, max_retries=0)
    except KeyboardInterrupt as stop:
        raise (Preempted if str(stop) == "SIGUSR2" else Interrupted)(str(stop)) from None
    for run in runs:
        outcome = outcomes[run.folder]
        if outcome.error:
            RunFolder(run.folder).fail(outcome.kind or FailureKind.code, outcome.error)


def _requeue(job_id: str) -> None:
    """Asks SLURM to queue the job again. Where it refuses, the run stays interrupted on record, and the
    driver submits it again."""
    try:
        slurm_commands.requeue(job_id)
    except SlurmError as error:
        log.error("%s", error)


def _await_claim(folder: RunFolder) -> None:
    """Waits until no other process executes the run, or it is clear that one really does."""
    deadline = time.monotonic() + _CLAIM_SECONDS
    while folder.is_claimed() and time.monotonic() < deadline:
        time.sleep(1.0)


def _checkpoints(folder: RunFolder) -> list[str]:
    """Names the complete checkpoints: where the run would go on."""
    return sorted(file.stem for file in (folder.checkpoints / "resume").glob("*.json"))


def _end(code: int) -> None:
    """Ends the process; a rank that has joined others does so past Python's own clean-up."""
    if "torch.distributed" not in sys.modules:  # the parent of packed runs never imports it
        sys.exit(code)
    from pmexp.systems.ranks import end_process

    end_process(code)
