"""``hydra/launcher=slurm``: the sweep as jobs of a SLURM cluster. docs/cluster.md is its manual."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hydra_plugins.pmexp_launchers import processes, slurm_commands
from hydra_plugins.pmexp_launchers.slurm_driver import Driver, going_on
from hydra_plugins.pmexp_launchers.slurm_resources import KEYS, PACKAGED, Resources, load
from hydra_plugins.pmexp_launchers.slurm_view import QueueView
from hydra_plugins.pmexp_launchers.submissions import Job, Submissions
from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.sweep import Outcome, State, is_finished, write_plan


@dataclass
class SlurmLauncherConf:
    """The keys below `resources` override its files: see slurm_resources.Resources."""

    _target_: str = "hydra_plugins.pmexp_launchers.slurm.SlurmLauncher"
    runs_per_job: int = 1  # small runs of one process that share an allocation
    n_jobs: int = 1  # of the runs of one job, at a time
    array_parallelism: int | None = None  # jobs of the sweep at a time; null: as many as the cluster lets
    max_retries: int = 2  # of a run whose job or node failed
    poll_s: float = 10.0  # seconds between two looks at the queue
    detach: bool = False  # submit and end; the same command follows the jobs later
    dry_run: bool = False  # print what would be submitted
    resources: str | None = None  # folder of YAML files; null: the package's own
    partition: str | None = None
    account: str | None = None
    nodes: int | None = None
    cpus_per_task: int | None = None
    gpus_per_task: int | None = None
    mem_gb: float | None = None
    time_min: int | None = None
    signal_before_end_s: int | None = None
    sbatch: dict[str, Any] | None = None
    setup: list[str] | None = None


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="pmexp")
