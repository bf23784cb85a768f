"""Follows jobs until each run has an outcome, by the run's own record; SLURM is asked for what left none."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hydra_plugins.pmexp_launchers import slurm_commands
from hydra_plugins.pmexp_launchers.slurm_commands import QueuedJob, SlurmError
from hydra_plugins.pmexp_launchers.slurm_view import QueueView
from hydra_plugins.pmexp_launchers.submissions import Job
from hydra_plugins.pmexp_launchers.sweep import Outcome, is_finished, recorded_outcome
from pmexp.config import RunConfig
from pmexp.run_folder.failure import FailureKind
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.state import State, state_of

_POLLS_UNTIL_GONE = 2  # records on a network file system come later than the end of the job
Submit = Callable[[Sequence[RunConfig]], Sequence[Job]]


class Driver:
    """Follows the jobs of a sweep. `submit` gives each of some runs a job: a new one, or the one it has."""

    def __init__(
        self, runs: Sequence[RunConfig], submit: Submit, max_retries: int, poll_s: float, view: QueueView
    ) -> None:
        self.outcomes: dict[Path, Outcome] = {}  # a Path is the run's folder, here and below
        self._runs = {run.folder: run for run in runs}
        self._submit, self._max_retries, self._poll_s, self._view = submit, max_retries, poll_s, view
        self._jobs: dict[Path, Job] = {}  # the job of each run without outcome
        self._polls_gone: Counter[str] = Counter()  # by job
        self._retries: Counter[Path] = Counter()
        self._held: set[str] = set()  # held jobs that the view has named already

    def follow(self, jobs: Sequence[Job]) -> None:
        """Returns when every run has an outcome."""
        self._take(jobs)
        while self._jobs:
            self._poll()
            if self._jobs:
                time.sleep(self._poll_s)

    def _take(self, jobs: Sequence[Job]) -> None:
        self._jobs |= {folder: job for job in jobs for folder in job.run_folders if folder in self._runs}

    def _poll(self) -> None:
        for folder in [folder for folder in self._jobs if is_finished(self._runs[folder])]:
            self._end(folder, recorded_outcome(self._runs[folder]) or Outcome(State.finished))
        try:
            queue = slurm_commands.queue()
        except SlurmError as error:  # a controller that restarts
            self._view.say(f"no answer from SLURM, asking again: {error}")
            return
        self._name_held(queue)
        gone = {job.job_id for job in self._jobs.values()} - queue.keys()
        self._polls_gone = Counter({job: self._polls_gone[job] + 1 for job in gone})
        ended = [
            folder
            for folder, job in self._jobs.items()
            if self._polls_gone[job.job_id] >= _POLLS_UNTIL_GONE and not self._is_executed(folder)
        ]
        outcomes = {folder: judged(self._runs[folder], self._jobs[folder]) for folder in ended}
        self._retry(
            {folder: outcomes[folder] for folder in ended if self._helps_to_retry(outcomes[folder], folder)}
        )
        for folder in ended:
            if self._polls_gone[self._jobs[folder].job_id] and not is_finished(self._runs[folder]):
                self._end(folder, outcomes[folder])
        waited_for = {folder: (self._runs[folder], job) for folder, job in self._jobs.items()}
        self._view.show(waited_for, queue)

    def _helps_to_retry(self, outcome: Outcome, folder: Path) -> bool:
        """Whether another try may help. An interrupted run has made a step at least, so that it cannot be
        submitted for ever."""
        left = self._retries[folder] < self._max_retries
        return outcome.kind is FailureKind.interrupted or (
            outcome.kind is FailureKind.infrastructure and left
        )

    def _retry(self, outcomes: Mapping[Path, Outcome]) -> None:
        if not outcomes:
            return
        try:
            self._take(self._submit([self._runs[folder] for folder in outcomes]))
        except SlurmError as error:
            self._view.say(f"not submitted again: {error}")
            return
        for folder, outcome in outcomes.items():
            then = "it goes on"
            if outcome.kind is FailureKind.infrastructure:
                self._retries[folder] += 1
                then = f"retry {self._retries[folder]} of {self._max_retries}"
            name = self._view.name_of(folder)
            self._view.say(f"{name} {outcome.state.value}: {outcome.error}; {then}")

    def _name_held(self, queue: Mapping[str, QueuedJob]) -> None:
        """Names the jobs that SLURM holds: they wait for a person."""
        for job in {job.job_id for job in self._jobs.values()} & queue.keys() - self._held:
            if "held" in queue[job].reason.lower():
                self._held.add(job)
                self._view.say(
                    f"SLURM holds job {job} ({queue[job].reason}); `scontrol release {job}` lets it go on"
                )

    def _is_executed(self, folder: Path) -> bool:
        """Whether another job or process than the one that is gone executes the run."""
        return state_of(RunFolder(folder)) is State.running

    def _end(self, folder: Path, outcome: Outcome) -> None:
        self.outcomes[folder] = outcome
        self._view.ended(self._runs[folder], self._jobs.pop(folder), outcome)


def judged(run: RunConfig, job: Job) -> Outcome:
    """What became of a run whose job has left the queue; without a kind where somebody has cancelled it."""
    recorded = recorded_outcome(run)
    if recorded and recorded.kind is not FailureKind.interrupted:
        return recorded
    state = slurm_commands.end_state(job.job_id)
    where = f"job {job.job_id}, its output: {job.output}"
    if state == "CANCELLED":
        return Outcome(State.interrupted, f"cancelled ({where})")
    if recorded:
        return recorded
    if state == "OUT_OF_MEMORY":
        said = f"the node's memory did not suffice; raise hydra.launcher.mem_gb ({where})"
        return Outcome(State.stale, said, kind=FailureKind.code)
    if not job.output.is_file():
        said = (
            f"job {job.job_id} ended as {state or 'unknown'} and left nothing in {job.folder}; runs_dir must "
            "be on a file system that the compute nodes share"
        )
        return Outcome(State.failed, said, kind=FailureKind.infrastructure)
    said = f"its job ended as {state or 'unknown'} and left no record ({where})"
    return Outcome(State.stale, said, kind=FailureKind.infrastructure)
