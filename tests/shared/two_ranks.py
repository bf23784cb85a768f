"""Two processes that train a swapped BERT under DistributedDataParallel, and what they leave to look at.

It is a file of its own because the processes import the function that they run.
"""

import copy
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers as hf
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dropout_cases import DROPOUTS, MODULES, Module
from forked_ranks import start_ranks
from pmexp.packed_dropout import replace_dropout

RANKS = 2
SEED = 11
SHARED = 0  # added to the seed: rank times this
OWN = 1


def run(folder: Path) -> list[dict[str, Any]]:
    """Trains on two ranks and returns what each has written down, in order of rank."""
    start_ranks(_worker, str(folder), processes=RANKS)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=RANKS
    )
    results: dict[str, Any] = {}
    for name, drop in DROPOUTS.items():
        for kind, step in (("own", OWN), ("shared", SHARED)):
            torch.manual_seed(SEED + step * rank)
            results[f"{name} {kind}"] = drop(torch.ones(10_000))
    for name, dropout in MODULES.items():
        results[f"{name} averaged"] = _averaged_gradients(dropout, rank)
        for kind, step, checkpointing in (
            ("first", OWN, None),
            ("again", OWN, None),
            ("reentrant", OWN, {"use_reentrant": True}),
            ("non-reentrant", OWN, {"use_reentrant": False}),
            ("shared", SHARED, None),
        ):
            results[f"{name} run {kind}"] = _train(dropout, rank, SEED + step * rank, checkpointing)
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an ordinary exit


def _model(dropout: Module) -> Any:
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=99,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        attn_implementation="eager",
    )
    model = hf.BertModel(config, add_pooling_layer=False).train()
    replace_dropout(model, dropout.func, **dropout.keywords)
    return model


def _ids(rank: int, step: int) -> Tensor:
    return torch.randint(3, 99, (2, 12), generator=torch.Generator().manual_seed(100 * step + rank))


def _train(
    dropout: Module, rank: int, seed: int, checkpointing: dict[str, bool] | None
) -> dict[str, list[Tensor]]:
    model = _model(dropout)
    if checkpointing is not None:
        model.gradient_checkpointing_enable(checkpointing)
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(seed)
    losses = []
    for step in range(4):
        loss = parallel(_ids(rank, step)).last_hidden_state[..., :3].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"losses": losses, "weights": [p.detach().clone() for p in model.parameters()]}


def _averaged_gradients(dropout: Module, rank: int) -> list[tuple[Tensor, Tensor]]:
    """Returns for each parameter its gradient under DistributedDataParallel and this rank's own by the same masks."""
    alone = _model(dropout)
    parallel = DistributedDataParallel(copy.deepcopy(alone))
    for model in (alone, parallel):
        torch.manual_seed(SEED + rank)
        model(_ids(rank, 0)).last_hidden_state.square().mean().backward()
    return [(a.grad, b.grad) for a, b in zip(parallel.parameters(), alone.parameters(), strict=True)]
