"""``hydra/launcher=local``: the sweep on this machine, each run in a process of its own."""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import FrameType

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hydra_plugins.pmexp_launchers import processes
from hydra_plugins.pmexp_launchers.progress import SweepProgress
from pmexp.config import RunConfig, parse
from pmexp.errors import SweepFailed, UserError
from pmexp.sweep import (
    Outcome,
    State,
    distinct,
    drop_from_plan,
    failures_text,
    is_finished,
    out_of_memory_text,
    write_plan,
)

_REFRESH_SECONDS = 0.5


@dataclass
class LocalLauncherConf:
    _target_: str = "hydra_plugins.pmexp_launchers.local.LocalLauncher"
    n_jobs: int = 1  # runs at a time


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="pmexp")


class LocalLauncher(Launcher):
    """Skips finished runs, executes the rest at most `n_jobs` at a time, and names those that failed."""

    def __init__(self, n_jobs: int = 1) -> None:
        self._n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if self._n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs: {self._n_jobs} must be at least 1")
        composed = [self._compose(overrides) for overrides in job_overrides]
        runs = distinct(parse(config) for config in composed)
        outcomes = {run.run_id: Outcome(State.skipped) for run in runs}
        waiting = [run for run in runs if not is_finished(run)]
        print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before")
        if waiting:
            processes.preload()
            processes.check(waiting)
            write_plan(runs)
            outcomes |= _execute(waiting, self._n_jobs)
            for run in waiting:
                if outcomes[run.run_id].bad_input:
                    drop_from_plan(run)
        if exhausted := out_of_memory_text(runs):
            print(f"done, with this result:\n{exhausted}")
        _raise_failures(runs, outcomes)
        return [
            JobReturn(overrides=overrides, cfg=config, status=JobStatus.COMPLETED)
            for overrides, config in zip(job_overrides, composed, strict=True)
        ]

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        """The run's configuration without Hydra's own."""
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return config


def _execute(waiting: Sequence[RunConfig], n_jobs: int) -> dict[str, Outcome]:
    """Runs them all. Ctrl-C or SIGTERM lets the running ones write their checkpoints, then raises."""
    queue = deque(waiting)
    workers: dict[int, processes.Worker] = {}
    outcomes: dict[str, Outcome] = {}
    with SweepProgress(len(waiting), n_jobs) as progress, _sigterm_as_interrupt():
        try:
            while queue or workers:
                while queue and len(workers) < n_jobs:
                    worker = processes.Worker(queue.popleft())
                    workers[worker.sentinel] = worker
                    progress.started(worker.run)
                for sentinel in wait(list(workers), timeout=_REFRESH_SECONDS):
                    assert isinstance(sentinel, int)
                    worker = workers.pop(sentinel)
                    outcomes[worker.run.run_id] = worker.outcome()
                    progress.ended(worker.run, outcomes[worker.run.run_id])
                progress.show([worker.run for worker in workers.values()])
        except KeyboardInterrupt:
            progress.say(f"stopping {len(workers)} runs at their next step ...")
            for worker in workers.values():
                worker.ask_to_stop()
            for worker in workers.values():
                worker.stop()
            raise
    return outcomes


def _raise_failures(runs: Sequence[RunConfig], outcomes: dict[str, Outcome]) -> None:
    bad = [outcomes[run.run_id] for run in runs if outcomes[run.run_id].error]
    if bad and all(outcome.bad_input for outcome in bad):
        raise UserError(f"{bad[0].error} ({len(bad)} of {len(runs)} runs)")
    if bad:
        raise SweepFailed(failures_text(runs, outcomes))


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
