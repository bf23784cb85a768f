"""Follows jobs until each run has an outcome, by the run's own record; SLURM is asked for what left none."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from hydra_plugins.pmexp_launchers import slurm_commands
from hydra_plugins.pmexp_launchers.slurm_commands import QueuedJob, SlurmError
from hydra_plugins.pmexp_launchers.slurm_view import QueueView
from hydra_plugins.pmexp_launchers.submissions import Job
from pmexp.config import RunConfig
from pmexp.failure import Kind
from pmexp.run_folder import RunFolder
from pmexp.sweep import Outcome, State, is_finished, recorded_outcome, state_of

_POLLS_UNTIL_GONE = 2  # records on a network file system come later than the end of the job
Submit = Callable[[Sequence[RunConfig]], Sequence[Job]]


class Driver:
    """`submit` gives each of some runs a job: a new one, or one that it has in the queue already."""

    def __init__(
        self, runs: Sequence[RunConfig], submit: Submit, max_retries: int, poll_s: float, view: QueueView
    ) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._runs = {run.run_id: run for run in runs}
        self._submit, self._max_retries, self._poll_s, self._view = submit, max_retries, poll_s, view
        self._jobs: dict[str, Job] = {}  # of each run without outcome
        self._polls_gone: Counter[str] = Counter()  # by job
        self._retries: Counter[str] = Counter()  # by run
        self._held: set[str] = set()  # jobs that were named

    def follow(self, jobs: Sequence[Job]) -> None:
        """Returns when every run has an outcome."""
        self._take(jobs)
        while self._jobs:
            self._poll()
            if self._jobs:
                time.sleep(self._poll_s)

    def _take(self, jobs: Sequence[Job]) -> None:
        self._jobs |= {run_id: job for job in jobs for run_id in job.run_ids if run_id in self._runs}

    def _poll(self) -> None:
        for run_id in [run_id for run_id in self._jobs if is_finished(self._runs[run_id])]:
            self._end(run_id, recorded_outcome(self._runs[run_id]) or Outcome(State.finished))
        try:
            queue = slurm_commands.queue()
        except SlurmError as error:  # a controller that restarts
            self._view.say(f"no answer from SLURM, asking again: {error}")
            return
        self._name_held(queue)
        gone = {job.job_id for job in self._jobs.values()} - queue.keys()
        self._polls_gone = Counter({job: self._polls_gone[job] + 1 for job in gone})
        ended = [
            run_id
            for run_id, job in self._jobs.items()
            if self._polls_gone[job.job_id] >= _POLLS_UNTIL_GONE and not self._is_executed(run_id)
        ]
        outcomes = {run_id: judged(self._runs[run_id], self._jobs[run_id]) for run_id in ended}
        self._retry(
            {run_id: outcomes[run_id] for run_id in ended if self._helps_to_retry(outcomes[run_id], run_id)}
        )
        for run_id in ended:
            if self._polls_gone[self._jobs[run_id].job_id] and not is_finished(self._runs[run_id]):
                self._end(run_id, outcomes[run_id])
        waited_for = {run_id: (self._runs[run_id], job) for run_id, job in self._jobs.items()}
        self._view.show(waited_for, queue)

    def _helps_to_retry(self, outcome: Outcome, run_id: str) -> bool:
        """An interrupted run has made a step at least, so that it cannot be submitted for ever."""
        left = self._retries[run_id] < self._max_retries
        return outcome.kind is Kind.interrupted or (outcome.kind is Kind.infrastructure and left)

    def _retry(self, outcomes: Mapping[str, Outcome]) -> None:
        if not outcomes:
            return
        try:
            self._take(self._submit([self._runs[run_id] for run_id in outcomes]))
        except SlurmError as error:
            self._view.say(f"not submitted again: {error}")
            return
        for run_id, outcome in outcomes.items():
            then = "it goes on"
            if outcome.kind is Kind.infrastructure:
                self._retries[run_id] += 1
                then = f"retry {self._retries[run_id]} of {self._max_retries}"
            self._view.say(f"{run_id} {outcome.state.value}: {outcome.error}; {then}")

    def _name_held(self, queue: Mapping[str, QueuedJob]) -> None:
        """A job that SLURM holds waits for a person."""
        for job in {job.job_id for job in self._jobs.values()} & queue.keys() - self._held:
            if "held" in queue[job].reason.lower():
                self._held.add(job)
                self._view.say(
                    f"SLURM holds job {job} ({queue[job].reason}); `scontrol release {job}` lets it go on"
                )

    def _is_executed(self, run_id: str) -> bool:
        """By another job or process than the one that is gone."""
        return state_of(RunFolder(self._runs[run_id].folder)) is State.running

    def _end(self, run_id: str, outcome: Outcome) -> None:
        self.outcomes[run_id] = outcome
        self._view.ended(self._runs[run_id], self._jobs.pop(run_id), outcome)


def judged(run: RunConfig, job: Job) -> Outcome:
    """What became of a run whose job has left the queue; without a kind where somebody has cancelled it."""
    recorded = recorded_outcome(run)
    if recorded and recorded.kind is not Kind.interrupted:
        return recorded
    state = slurm_commands.end_state(job.job_id)
    where = f"job {job.job_id}, its output: {job.output}"
    if state == "CANCELLED":
        return Outcome(State.interrupted, f"cancelled ({where})")
    if recorded:
        return recorded
    if state == "OUT_OF_MEMORY":
        said = f"the node's memory did not suffice; raise hydra.launcher.mem_gb ({where})"
        return Outcome(State.killed, said, kind=Kind.code)
    if not job.output.is_file():
        said = (
            f"job {job.job_id} ended as {state or 'unknown'} and left nothing in {job.folder}; runs_dir must "
            "be on a file system that the compute nodes share"
        )
        return Outcome(State.failed, said, kind=Kind.infrastructure)
    said = f"its job ended as {state or 'unknown'} and left no record ({where})"
    return Outcome(State.killed, said, kind=Kind.infrastructure)
