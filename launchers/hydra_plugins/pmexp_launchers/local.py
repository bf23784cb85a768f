"""Defines ``hydra/launcher=local``: the sweep on this machine, each run in a process of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore

from hydra_plugins.pmexp_launchers import processes
from hydra_plugins.pmexp_launchers.local_execution import execute
from hydra_plugins.pmexp_launchers.sweep import Outcome, write_plan
from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.config import RunConfig
from pmexp.config.checks import check_at_least


@dataclass
class LocalLauncherConf:
    """Executes each run in a process of its own on this machine."""

    _target_: str = "hydra_plugins.pmexp_launchers.local.LocalLauncher"
    n_jobs: int = 1  # runs at a time; on several GPUs each gets one of them
    max_retries: int = 2  # a run that was killed or that the machine failed is tried again so often


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="pmexp")


class LocalLauncher(SweepLauncher):
    """Executes the runs at most `n_jobs` at a time."""

    def __init__(self, n_jobs: int, max_retries: int) -> None:
        self._n_jobs, self._max_retries = n_jobs, max_retries

    def check(self) -> None:
        check_at_least("hydra.launcher.n_jobs", self._n_jobs, 1)
        check_at_least("hydra.launcher.max_retries", self._max_retries, 0)

    def execute(self, runs: Sequence[RunConfig], waiting: Sequence[RunConfig]) -> Mapping[Path, Outcome]:
        processes.preload()
        processes.check(waiting)
        write_plan(runs)
        return execute(waiting, self._n_jobs, self._max_retries)
