"""A step of several processes waits for the slowest loader of any, and its record says so.

The processes import the function that they run.
"""

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from composed import config
from forked_ranks import start_ranks
from pmexp.config import Part, RunConfig
from pmexp.models.examples import Batch, Examples
from pmexp.systems.ranks import end_process
from pmexp.training.prepared import prepare
from pmexp.training.resuming import state_of
from small_runs import TINY_VIT

STEPS, SLOW_S = 7, 0.03  # two of them behind the warm-up


class Slow:
    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        time.sleep(SLOW_S)
        return self._examples.batch(rows, epoch)


def _train(rank: int, folder: str, run: RunConfig) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=2)
    training = prepare(run).training
    if rank == 1:
        training.train = Slow(training.train)
    for _ in training.steps():
        pass
    waiting = training.timer.waiting()
    for _ in range(2):  # a checkpoint exchanges nothing again
        state_of(training)
    assert training.timer.waiting() == waiting
    torch.save(waiting, f"{folder}/{rank}.pt")
    end_process(0)


@pytest.mark.slow
def test_the_longest_wait_of_any_process_is_the_steps(tmp_path: Path) -> None:
    run = config(*TINY_VIT, f"train.max_steps={STEPS}", "train.accumulate=2", "train.batch_size=8")
    run = replace(run, system=replace(run.system, parts=[Part.ddp], processes=2))
    start_ranks(_train, str(tmp_path), run, processes=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["speed/data_wait_ms"] == second["speed/data_wait_ms"]
    assert first["speed/data_wait_ms"] >= 2 * 1e3 * SLOW_S  # both parts of a step
    assert 0.02 < first["speed/data_wait_share"] < 1
