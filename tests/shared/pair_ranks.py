"""Processes that share the evaluation of a sequence-to-sequence model, and what rank 0 has of it.

It is a file of its own because the processes import the function that they run.
"""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from forked_ranks import start_ranks
from pmexp import models
from pmexp.config import Part, RunConfig
from pmexp.datasets.base import Dataset
from pmexp.systems.ranks import Ranks, end_process
from pmexp.systems.system import System
from pmexp.training.loop import Training

WORLD = 2
Evaluated = tuple[dict[str, float], list[str], list[str]]


def run(folder: Path, config: RunConfig, data: Dataset) -> Evaluated:
    """Evaluates on two ranks under FSDP, whose parameters are split until a forward needs them."""
    system = replace(config.system, parts=[Part.fsdp], processes=WORLD)
    start_ranks(_worker, str(folder), replace(config, system=system), data, processes=WORLD)
    result: Evaluated = torch.load(folder / "result.pt", weights_only=False)
    return result


def _worker(rank: int, folder: str, config: RunConfig, data: Dataset) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, timedelta(seconds=60), rank=rank, world_size=WORLD)
    result = evaluated(Ranks(rank, rank, WORLD), config, data)
    if rank == 0:
        torch.save(result, Path(folder) / "result.pt")
    end_process(0)


def evaluated(ranks: Ranks, config: RunConfig, data: Dataset) -> Evaluated:
    """The metrics of every rank, and on rank 0 what was written and what should have been."""
    torch.manual_seed(0)
    model = models.build(config, data)
    for parameter in model.module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # so that texts have different lengths
    examples, system = model.examples(data.val, config.dataset.max_length), System(config.system)
    training = Training(
        model.module, examples, examples, config.train, ["bleu"], 5, system, ranks, model.generation
    )
    metrics, whole = training.evaluator.evaluate(examples), training.evaluator.predict(examples)
    return metrics, list(whole.written) if whole else [], list(whole.references) if whole else []
