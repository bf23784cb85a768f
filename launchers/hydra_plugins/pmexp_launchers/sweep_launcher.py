"""What all launchers do with a sweep, wherever its runs are executed."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

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
)


class SweepLauncher(Launcher):
    """Skips finished runs, has the rest executed, and names those that failed."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        composed = [self._compose(overrides) for overrides in job_overrides]
        typed = [parse(config) for config in composed]
        runs = distinct(typed)
        if len(runs) < len(typed):
            print(f"{len(typed)} combinations are {len(runs)} different runs; each is executed once")
        self.sweep(runs)
        return [
            JobReturn(overrides=overrides, cfg=config, status=JobStatus.COMPLETED)
            for overrides, config in zip(job_overrides, composed, strict=True)
        ]

    def sweep(self, runs: Sequence[RunConfig]) -> None:
        """Raises SweepFailed, or UserError where nothing but bad input was the reason. Data that has changed
        since a run was made of it is bad input, before anything is executed."""
        self.check()
        if of_files := [run for run in runs if run.has_local_data]:
            from pmexp.datasets.digest import refuse_changed_data  # imports much

            refuse_changed_data(of_files)
        outcomes = {run.folder: Outcome(State.skipped) for run in runs}
        waiting = [run for run in runs if not is_finished(run)]
        print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before")
        if waiting:
            outcomes |= self.execute(runs, waiting)
        for run in waiting:
            if outcomes[run.folder].bad_input:
                drop_from_plan(run)
        if exhausted := out_of_memory_text(runs):
            print(f"done, with this result:\n{exhausted}")
        _raise_failures(runs, outcomes)

    @abstractmethod
    def check(self) -> None:
        """Raises UserError where the launcher's own keys are wrong."""

    @abstractmethod
    def execute(self, runs: Sequence[RunConfig], waiting: Sequence[RunConfig]) -> Mapping[Path, Outcome]:
        """The outcome of each of the `waiting` among the sweep's `runs`, by its folder."""

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        """The run's configuration without Hydra's own."""
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return config


def _raise_failures(runs: Sequence[RunConfig], outcomes: Mapping[Path, Outcome]) -> None:
    bad = [outcomes[run.folder] for run in runs if outcomes[run.folder].error]
    if bad and all(outcome.bad_input for outcome in bad):
        raise UserError(f"{bad[0].error} ({len(bad)} of {len(runs)} runs)")
    if bad:
        raise SweepFailed(failures_text(runs, outcomes))
