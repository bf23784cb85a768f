"""Defines ``hydra/launcher=local``: the sweep on this machine, each run in a process of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra_plugins.pmexp_launchers import processes
from hydra_plugins.pmexp_launchers.local_execution import execute
from hydra_plugins.pmexp_launchers.sweep import Outcome, write_plan
from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.config import RunConfig
from pmexp.config.checks import check_at_least


class LocalLauncher(SweepLauncher):
    """Executes the runs at most `n_jobs` at a time."""

    def __init__(self, n_jobs: int, max_retries: int) -> None:
        self._n_jobs, self._max_retries = n_jobs, max_retries

    def check(self) -> None:
        check_at_least("hydra.launcher.n_jobs", self._n_jobs, 1)
        check_at_least("hydra.launcher.max_retries", self._max_retries, 0)

    def execute(
        self, runs: Sequence[RunConfig], waiting: Sequence[RunConfig], names: Mapping[Path, str]
    ) -> Mapping[Path, Outcome]:
        processes.preload()
        processes.check(waiting)
        write_plan(runs)
        return execute(waiting, names, self._n_jobs, self._max_retries)
