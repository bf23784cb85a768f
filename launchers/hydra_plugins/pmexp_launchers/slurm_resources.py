"""Reads what a SLURM job asks for: typed values out of YAML files, a file a part of the system stack."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pmexp.config import Device, Part, SystemConfig
from pmexp.config.checks import check_at_least
from pmexp.errors import UserError

PACKAGED = Path(__file__).parent / "resources"
_DEFAULT = "default"
# Options of sbatch that follow from keys, or that the launcher finds a job and its output by.
_DECIDED_BY = {
    "partition": "hydra.launcher.partition",
    "account": "hydra.launcher.account",
    "nodes": "hydra.launcher.nodes",
    "ntasks": "system.processes",
    "ntasks-per-node": "system.processes",
    "cpus-per-task": "hydra.launcher.cpus_per_task",
    "time": "hydra.launcher.time_min",
    "signal": "hydra.launcher.signal_before_end_s",
    "array": "hydra.launcher.array_parallelism",
    **dict.fromkeys(("output", "error", "open-mode", "requeue", "no-requeue"), "the launcher itself"),
}


@dataclass(kw_only=True)
class Resources:
    """What a job asks for. Its tasks follow from the run: system.processes, spread over the nodes evenly."""

    partition: str | None = None  # null: the cluster's default
    account: str | None = None  # null: the user's default
    nodes: int = 1
    cpus_per_task: int = 1
    gpus_per_task: int = 1  # none are asked for where system.device=cpu
    mem_gb: float | None = None  # a node; null: the cluster's default
    time_min: int = 60  # a job that is not done by then goes on in its next time slice
    signal_before_end_s: int = 120  # from SIGUSR2 to the time limit: enough for a step and a checkpoint
    sbatch: dict[str, Any] = field(default_factory=dict)  # more options; one that is null is left out
    setup: list[str] = field(default_factory=list)  # commands of the job's shell before the run

    def __post_init__(self) -> None:
        lowest = {"nodes": 1, "cpus_per_task": 1, "gpus_per_task": 0, "time_min": 1, "signal_before_end_s": 1}
        for key, low in lowest.items():
            check_at_least(key, getattr(self, key), low)
        if self.mem_gb is not None and self.mem_gb <= 0:
            raise UserError(f"mem_gb: {self.mem_gb} must be positive; null leaves it to the cluster")
        for option, value in self.sbatch.items():
            _check_option(option, value)
        if self.signal_before_end_s >= 60 * self.time_min:
            raise UserError(
                f"signal_before_end_s: {self.signal_before_end_s} leaves nothing of "
                f"time_min={self.time_min}; allowed are 1 to {60 * self.time_min - 1}"
            )

    def parameters(self, system: SystemConfig) -> dict[str, Any]:
        """Returns submitit's words for it. Raises UserError where the processes do not fit the nodes."""
        if system.processes % self.nodes:
            raise UserError(
                f"hydra.launcher.nodes: {self.nodes} nodes cannot share system.processes={system.processes} "
                "evenly; choose a divisor"
            )
        tasks = system.processes // self.nodes
        given = {option: value for option, value in self.sbatch.items() if value is not None}
        # GPUs of the node, not of the task: a task that sees only its own has no peer access to the others',
        # and its index is 0 instead of the local rank that torch is told.
        gpus = 0 if system.device is Device.cpu else self.gpus_per_task * tasks
        asked = {
            "partition": self.partition,
            "account": self.account,
            "nodes": self.nodes,
            "ntasks_per_node": tasks,
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": gpus or None,
            "mem": None if self.mem_gb is None else f"{round(self.mem_gb * 1024)}M",
            "time": self.time_min,
            "signal_delay_s": self.signal_before_end_s,
            "setup": self.setup or None,
            "wckey": None,  # submitit's own is refused where keys are checked
            "stderr_to_stdout": True,
            "additional_parameters": {"requeue": True, **given},
            # srun no longer takes over sbatch's since 22.05; a task that died must not leave others waiting
            "srun_args": [f"--cpus-per-task={self.cpus_per_task}", "--kill-on-bad-exit=1"],
        }
        return {key: value for key, value in asked.items() if value is not None or key == "wckey"}


def _check_option(option: str, value: Any) -> None:
    """Raises UserError for an option of sbatch that a key decides, or a value that is none of sbatch's."""
    if decided_by := _DECIDED_BY.get(option.replace("_", "-")):
        raise UserError(f"sbatch.{option}: is decided by {decided_by}; leave it out here")
    if value is False or not isinstance(value, str | int | float | None):
        raise UserError(
            f"sbatch.{option}: {value!r} is no value of an option; allowed are a text, a number, true for an "
            "option without a value, and null to leave it out"
        )


KEYS = tuple(each.name for each in fields(Resources))


def load(folder: Path, system: SystemConfig, overrides: Mapping[str, Any]) -> Resources:
    """Reads default.yaml of the folder, then the file of each of the system's parts, then `overrides`.

    Raises UserError that names the file and the key.
    """
    files = _files(folder)
    merged = OmegaConf.structured(Resources)
    for name in (_DEFAULT, *(part.name for part in system.parts)):
        if name in files:
            _merge(merged, str(files[name]), _read(files[name]))
    _merge(merged, "hydra.launcher", overrides)
    try:
        resources = OmegaConf.to_object(merged)
    except UserError as error:
        raise UserError(f"hydra.launcher.{error} (resources of system={system.name}: {folder})") from None
    assert isinstance(resources, Resources)
    return resources


def _files(folder: Path) -> dict[str, Path]:
    files = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if _DEFAULT not in files:
        raise UserError(
            f"hydra.launcher.resources: {folder} has no {_DEFAULT}.yaml; "
            "pmexp slurm-resources FOLDER writes files to adapt"
        )
    allowed = (_DEFAULT, *(part.name for part in Part))
    if unknown := [name for name in files if name not in allowed]:
        raise UserError(f"{files[unknown[0]]}: no system part is named so; allowed are {', '.join(allowed)}")
    return files


def _read(file: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{file}: is not YAML: {said}") from None
    if not isinstance(values, Mapping | None):
        raise UserError(f"{file}: must hold keys and values, {', '.join(KEYS)}")
    return values or {}


def _merge(merged: Any, where: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in KEYS:
            raise UserError(f"{where}: {key!r} is not a key; allowed are {', '.join(KEYS)}")
        try:
            OmegaConf.update(merged, key, value, merge=True)
        except OmegaConfBaseException as error:
            said = str(error).splitlines()[0]
            raise UserError(f"{where}: {key}={value!r}: {said}") from None
