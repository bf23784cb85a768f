"""Defines ``hydra/launcher=slurm``: the sweep as jobs of a SLURM cluster. docs/cluster.md is its manual."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra_plugins.pmexp_launchers import processes, slurm_commands
from hydra_plugins.pmexp_launchers.keys import SlurmLauncherConf
from hydra_plugins.pmexp_launchers.slurm_driver import Driver
from hydra_plugins.pmexp_launchers.slurm_resources import KEYS, PACKAGED, Resources, load
from hydra_plugins.pmexp_launchers.slurm_submission import Array, Packing, arrays_of, submit
from hydra_plugins.pmexp_launchers.slurm_view import QueueView
from hydra_plugins.pmexp_launchers.submissions import Job, Submissions, array_ids
from hydra_plugins.pmexp_launchers.sweep import Outcome, is_finished, write_plan
from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.config import RunConfig
from pmexp.config.checks import check_at_least
from pmexp.errors import Interrupted, UserError
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.state import State
from pmexp.shown import counted


class SlurmLauncher(SweepLauncher):
    """Submits what neither is finished nor has a job, and follows all jobs of the sweep to their end."""

    def __init__(self, **keys: Any) -> None:
        self._conf = SlurmLauncherConf(**keys)
        # The files decide the keys that were not given.
        self._overrides = {key: keys[key] for key in KEYS if keys.get(key) not in (None, {}, [])}
        self._resources: dict[str, Resources] = {}  # by system stack

    def check(self) -> None:
        for key, low in (("runs_per_job", 1), ("n_jobs", 1), ("array_parallelism", 1), ("max_retries", 0)):
            value = getattr(self._conf, key)
            if value is not None:
                check_at_least(f"hydra.launcher.{key}", value, low)
        if self._conf.poll_s <= 0:
            raise UserError(f"hydra.launcher.poll_s: {self._conf.poll_s} must be positive")
        slurm_commands.require()

    def execute(
        self, runs: Sequence[RunConfig], waiting: Sequence[RunConfig], names: Mapping[Path, str]
    ) -> Mapping[Path, Outcome]:
        for run in waiting:
            _refuse_pattern(run.runs_dir)
        pending = {run.folder: Outcome(State.pending) for run in waiting}
        new, living = _without_job(waiting)
        arrays = self._arrays(new)
        if self._conf.dry_run:
            _print_plan(runs, names, living, arrays)
            return pending
        if new:
            processes.check(new, here=False)
            write_plan(runs)
        try:
            jobs = self._jobs_of(waiting)
            if self._conf.detach:
                print(_going_on(jobs))
                return pending
            with QueueView(waiting, names) as view:
                driver = Driver(waiting, self._jobs_of, self._conf.max_retries, self._conf.poll_s, view)
                driver.follow(jobs)
        except KeyboardInterrupt:
            raise Interrupted(_going_on(_without_job(waiting)[1])) from None
        return driver.outcomes

    def _jobs_of(self, runs: Sequence[RunConfig]) -> list[Job]:
        """A job for each run that is not finished, the one it has or a new one. Other drivers wait."""
        experiments = sorted({run.folder.parent for run in runs})
        with ExitStack() as locks:
            for experiment in experiments:
                locks.enter_context(Submissions(experiment).locked())
            new, living = _without_job(runs)
            for run in new:
                RunFolder(run.folder).failure.unlink(missing_ok=True)  # it tells of an earlier job
            submitted = submit(self._arrays(new))
        for jobs, what in ((living, "have a job already"), (submitted, "submitted")):
            if jobs:
                count = sum(len(job.run_ids) for job in jobs)
                # It is flushed, so that a file that output goes to has the ids long before the end.
                print(f"{counted(count, 'run')} {what}: {array_ids(jobs)}", flush=True)
        return living + submitted

    def _arrays(self, runs: Sequence[RunConfig]) -> list[Array]:
        packing = Packing(self._conf.runs_per_job, self._conf.n_jobs, self._conf.array_parallelism)
        return arrays_of(runs, self._resources_of, packing, slurm_commands.max_array_size())

    def _resources_of(self, run: RunConfig) -> Resources:
        if run.system.name not in self._resources:
            folder = Path(os.path.expanduser(self._conf.resources)) if self._conf.resources else PACKAGED
            self._resources[run.system.name] = load(folder, run.system, self._overrides)
        return self._resources[run.system.name]


def _refuse_pattern(runs_dir: str) -> None:
    """Raises UserError for a path in which SLURM would put a job's number or name."""
    if "%" in runs_dir or "\\" in runs_dir:
        raise UserError(
            f"runs_dir: SLURM cannot keep the output of jobs in {runs_dir}, since % and \\ mean something "
            "else to it; name a path without them"
        )


def _without_job(runs: Sequence[RunConfig]) -> tuple[list[RunConfig], list[Job]]:
    """The unfinished runs that no job in the queue has, and the jobs of the others."""
    queued = slurm_commands.queue()
    unfinished = {run.folder: run for run in runs if not is_finished(run)}
    experiments = dict.fromkeys(folder.parent for folder in unfinished)
    living = [job for each in experiments for job in Submissions(each).living(queued)]
    living = [job for job in living if not unfinished.keys().isdisjoint(job.run_folders)]
    attended = {folder for job in living for folder in job.run_folders}
    return [run for folder, run in unfinished.items() if folder not in attended], living


def _going_on(jobs: Sequence[Job]) -> str:
    """What to do with jobs that no driver follows."""
    if not jobs:
        return "no job is in the queue; run the same command to go on"
    return f"the jobs go on; the same command follows them again, `scancel {array_ids(jobs)}` ends them"


def _print_plan(
    runs: Sequence[RunConfig], names: Mapping[Path, str], living: Sequence[Job], arrays: Sequence[Array]
) -> None:
    job_of = {folder: job.job_id for job in living for folder in job.run_folders}
    for run in runs:
        job = f"has job {job_of[run.folder]}" if run.folder in job_of else "to do"
        print(f"{names[run.folder]}: {'finished' if is_finished(run) else job}")
    for array in arrays:
        print(
            f"\n--- sbatch, {counted(len(array.packs), 'job')} with "
            f"{counted(sum(map(len, array.packs)), 'run')} ---"
        )
        print(array.script())
