"""``hydra/launcher=local``: the sweep on this machine, each run in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hydra_plugins.pmexp_launchers import processes
from hydra_plugins.pmexp_launchers.local_execution import execute
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


@dataclass
class LocalLauncherConf:
    _target_: str = "hydra_plugins.pmexp_launchers.local.LocalLauncher"
    n_jobs: int = 1  # runs at a time; on several GPUs each gets one of them
    max_retries: int = 2  # of a run that was killed or that the machine failed


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="pmexp")


class LocalLauncher(Launcher):
    """Skips finished runs, executes the rest at most `n_jobs` at a time, and names those that failed."""

    def __init__(self, n_jobs: int, max_retries: int) -> None:
        self._n_jobs, self._max_retries = n_jobs, max_retries

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        composed = [self._compose(overrides) for overrides in job_overrides]
        self.sweep(distinct(parse(config) for config in composed))
        return [
            JobReturn(overrides=overrides, cfg=config, status=JobStatus.COMPLETED)
            for overrides, config in zip(job_overrides, composed, strict=True)
        ]

    def sweep(self, runs: Sequence[RunConfig]) -> None:
        """Raises SweepFailed, or UserError where nothing but bad input was the reason."""
        if self._n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs: {self._n_jobs} must be at least 1")
        if self._max_retries < 0:
            raise UserError(f"hydra.launcher.max_retries: {self._max_retries} must be at least 0")
        outcomes = {run.run_id: Outcome(State.skipped) for run in runs}
        waiting = [run for run in runs if not is_finished(run)]
        print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before")
        if waiting:
            processes.preload()
            processes.check(waiting)
            write_plan(runs)
            outcomes |= execute(waiting, self._n_jobs, self._max_retries)
            for run in waiting:
                if outcomes[run.run_id].bad_input:
                    drop_from_plan(run)
        if exhausted := out_of_memory_text(runs):
            print(f"done, with this result:\n{exhausted}")
        _raise_failures(runs, outcomes)

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        """The run's configuration without Hydra's own."""
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return config


def _raise_failures(runs: Sequence[RunConfig], outcomes: dict[str, Outcome]) -> None:
    bad = [outcomes[run.run_id] for run in runs if outcomes[run.run_id].error]
    if bad and all(outcome.bad_input for outcome in bad):
        raise UserError(f"{bad[0].error} ({len(bad)} of {len(runs)} runs)")
    if bad:
        raise SweepFailed(failures_text(runs, outcomes))
