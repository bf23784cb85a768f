"""Knows the processes of one run: which one this is, how it joins the others, and what they agree on.

A run on several processes is started by torch's elastic launcher (`systems.launch`), by torchrun, by
`accelerate launch` or by SLURM's srun; here they all look the same. A run on one process never touches
`torch.distributed`.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pmexp.config import SystemConfig
from pmexp.errors import UserError
from pmexp.systems import alarm

# A collective may take so long, since rank 0 may evaluate or write while the others wait.
_TIMEOUT = timedelta(minutes=30)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ranks:
    """Says which process of the run this is. Its collectives go over gloo, on CUDA too."""

    rank: int = 0
    local_rank: int = 0  # its number on this machine, the index of its CUDA device
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes the run's files; the others write only their own output."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This rank's rows of a global batch: every world-size-th, so that all ranks' rows are the batch."""
        return rows[self.rank :: self.world_size]

    def seed(self, seed: int) -> int:
        """The seed of this rank's random numbers: rank 0 keeps the run's, so one process draws the same.

        The others get the hash of (seed, rank): seed + rank would give two runs of neighbouring seeds common
        masks, and torch's CPU generator reads 32 bits of a seed only.
        """
        if self.is_first:
            return seed
        return int(np.random.SeedSequence((seed, self.rank)).generate_state(1)[0])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of each rank's `tensor`, on the CPU."""
        total = tensor.detach().to("cpu", copy=True)
        if self.world_size > 1:
            dist.all_reduce(total)
        return total

    def most(self, number: int) -> int:
        """The largest `number` of any rank: all of them get the same answer."""
        return int(self.largest(torch.tensor(number)))

    def largest(self, tensor: Tensor) -> Tensor:
        """The elementwise largest of each rank's `tensor`, which is on the CPU and may be overwritten."""
        if self.world_size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def gather(self, value: _T) -> list[_T]:
        """Every rank's `value` in order of rank, on rank 0; an empty list on the others."""
        if self.world_size == 1:
            return [value]
        values: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(value, values)
        return values or []

    def from_first(self, value: _T) -> _T:
        """Rank 0's `value`, on every rank."""
        if self.world_size == 1:
            return value
        values = [value if self.is_first else None]
        dist.broadcast_object_list(values)
        return cast(_T, values[0])

    def wait(self) -> None:
        """Waits until every rank is here."""
        if self.world_size > 1:
            dist.barrier()


def started_processes(environment: Mapping[str, str] = os.environ) -> int | None:
    """How many processes a launcher has started for this run; None where this process stands alone.

    SLURM's batch script sees the allocation's SLURM_NTASKS although it is one process; only the tasks of
    srun have SLURM_STEP_NUM_TASKS, so that one counts.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return int(environment["WORLD_SIZE"])
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    return tasks if tasks > 1 and "SLURM_PROCID" in environment else None


def check_started(config: SystemConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError where a launcher has started another number of processes than the run has."""
    started = started_processes(environment)
    if started not in (None, config.processes):
        raise UserError(
            f"system.processes: {config.processes}, but the launcher has started {started}; "
            f"set system.processes={started} or start {config.processes}"
        )


def join(config: SystemConfig, device: torch.device) -> Ranks:
    """Meets the other processes of the run; a run on one process has nobody to meet."""
    check_started(config)
    if config.processes == 1:
        return Ranks()
    _as_torchrun_does(os.environ)
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"]))
    if device.type == "cuda":
        torch.cuda.set_device(ranks.local_rank)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_TIMEOUT)
        alarm.watch(ranks.rank)
    return ranks


def end_process(code: int) -> None:
    """Ends this process with `code`; one that has joined others ends without Python's own clean-up.

    Gloo's threads abort an ordinary exit now and then (SIGABRT in 3 of 18 runs on two processes), and a
    launcher takes that for a failed run.
    """
    torch_distributed = sys.modules.get("torch.distributed")
    if torch_distributed is None or not torch_distributed.is_initialized():
        sys.exit(code)
    if code == 0:
        alarm.stop()
        dist.barrier()
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _as_torchrun_does(environment: Any) -> None:
    """Sets the variables of torch's env:// rendezvous where srun has started the processes."""
    if "RANK" in environment:
        return
    try:
        values = {
            "RANK": environment["SLURM_PROCID"],
            "LOCAL_RANK": environment["SLURM_LOCALID"],
            "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
            "MASTER_ADDR": environment["SLURM_LAUNCH_NODE_IPADDR"],
            # All tasks need one port, and the next step of the same job another one.
            "MASTER_PORT": str(20000 + (int(environment["SLURM_JOB_ID"]) * 7 + _step(environment)) % 20000),
        }
    except KeyError as missing:
        raise UserError(
            f"system.processes: srun has not set {missing}; set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR "
            "and MASTER_PORT, or start the run under torchrun"
        ) from None
    for name, value in values.items():
        environment.setdefault(name, value)


def _step(environment: Mapping[str, str]) -> int:
    return int(environment.get("SLURM_STEP_ID", 0))
