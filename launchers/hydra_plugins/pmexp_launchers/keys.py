"""Declares the keys of the launchers. It imports no launcher: `--help` and single runs need none."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class LocalLauncherConf:
    """Executes each run in a process of its own on this machine."""

    _target_: str = "hydra_plugins.pmexp_launchers.local.LocalLauncher"
    n_jobs: int = 1  # runs at a time; on several GPUs each gets one of them
    max_retries: int = 2  # a run that was killed or that the machine failed is tried again so often


@dataclass
class SlurmLauncherConf:
    """Submits the runs as jobs of a cluster. What is null is left to the files of resources."""

    _target_: str = "hydra_plugins.pmexp_launchers.slurm.SlurmLauncher"
    runs_per_job: int = 1  # small runs of one process that share an allocation
    n_jobs: int = 1  # so many of the runs of one job are executed at a time
    array_parallelism: int | None = None  # jobs of the sweep at a time; null: as many as the cluster lets
    max_retries: int = 2  # a run whose job or node failed is tried again so often
    poll_s: float = 10.0  # seconds between two looks at the queue
    detach: bool = False  # ends once all is submitted; the same command follows the jobs later
    dry_run: bool = False  # prints what would be submitted
    resources: str | None = None  # folder of YAML files; null: the package's own
    partition: str | None = None  # part of the cluster that jobs ask for
    account: str | None = None  # account of the cluster that is charged
    nodes: int | None = None  # nodes of a job
    cpus_per_task: int | None = None  # cores of a process
    gpus_per_task: int | None = None  # GPUs of a process; none are asked for where system.device=cpu
    mem_gb: float | None = None  # memory of a node
    time_min: int | None = None  # minutes; a job that is not done by then goes on in its next time slice
    signal_before_end_s: int | None = None  # seconds from SIGUSR2 to the time limit, for a last checkpoint
    sbatch: dict[str, Any] = field(default_factory=dict)  # more options of sbatch, such as {qos: long}
    setup: list[str] = field(default_factory=list)  # commands of the job's shell before the run


_store = ConfigStore.instance()
_store.store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="pmexp")
_store.store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="pmexp")
