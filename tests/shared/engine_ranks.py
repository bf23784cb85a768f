"""Processes that train a small BERT under each engine, and what they leave to look at.

It is a file of its own because the processes import the function that they run.
"""

import importlib.util
import os
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers as hf
from torch import Tensor

from forked_ranks import start_ranks
from pmexp.config import SHARDING, Part, SystemConfig
from pmexp.measure.memory_by_category import held
from pmexp.measure.tensor_bytes import TensorBytes, TensorMemory
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.engines import Engine
from pmexp.systems.ranks import Ranks, end_process
from pmexp.systems.system import System

STEPS, GLOBAL_BATCH, MICRO_BATCHES = 4, 8, 2
SEED = 11
MEASURED = 1  # the step whose tensors are counted
CUT = 2  # the step at which a run is stopped and resumed
FROZEN = (Part.ddp, Part.zero2, Part.fsdp)  # engines that also train beside frozen weights
TRAINED = ("bert.encoder.layer.0.attention.self.query.weight", "classifier.weight", "classifier.bias")
_BITS = [Part.checkpointing, Part.bf16, Part.offload]
_HERE = [p for p in SHARDING if "zero" not in p.name or importlib.util.find_spec("deepspeed")]
STACKS = {
    "-".join(part.name for part in parts): parts for kind in SHARDING for parts in ([kind], [kind, *_BITS])
}


def run(folder: Path, world_size: int = 2) -> list[dict[str, Any]]:
    """Returns the results of each rank, in order of rank."""
    if world_size == 1:
        return [_results(Ranks())]
    start_ranks(_worker, str(folder), world_size, processes=world_size)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(world_size)]


def _worker(rank: int, folder: str, world_size: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    # DeepSpeed asks for them and uses the group.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=world_size
    )
    torch.save(_results(Ranks(rank, rank, world_size)), Path(folder) / f"rank{rank}.pt")
    end_process(0)


def _results(ranks: Ranks) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if ranks.world_size == 1:
        for extra in ([], [Part.bf16]):
            results["-".join(part.name for part in extra)] = train(ranks, extra, p=0.0)
        return results
    for name, parts in STACKS.items():
        if parts[0] not in _HERE:
            continue
        results[name] = {
            "exact": train(ranks, parts, p=0.0),
            "dropout": train(ranks, parts, p=0.5),
            "again": train(ranks, parts, p=0.5, stop_at=CUT),
        }
    for part in FROZEN:
        if part in _HERE:
            parts = [part, Part.bf16]
            whole, again = (train(ranks, parts, 0.5, stop, frozen=True) for stop in (None, CUT))
            results[f"{part.name}-frozen"] = {"dropout": whole, "again": again}
    return results


def train(
    ranks: Ranks, parts: list[Part], p: float, stop_at: int | None = None, frozen: bool = False
) -> dict[str, Any]:
    """The losses of the global batches, gradient norms and weights, and what was held; with `stop_at` by way of a checkpoint."""
    system, engine, model = _build(ranks, parts, p, frozen)
    torch.manual_seed(ranks.seed(SEED))
    losses, norms, counted, taken = [], [], {}, TensorBytes(0)
    for step in range(STEPS):
        if step == stop_at:
            saved = _saved(ranks, engine)
            system, engine, model = _build(ranks, parts, p, frozen)
            weights, states, rng = saved
            engine.load_weights(weights)
            engine.restore(states)
            torch.set_rng_state(rng)
        before = [*engine.held_parameters(), *engine.held_gradients(), *engine.held_state()]
        with TensorMemory(system.device).block(before) if step == MEASURED else nullcontext() as block:
            losses.append(_gradient(ranks, system, engine, model, step))
            counted |= held(parameters=engine.held_parameters(), gradients=engine.held_gradients())
            norms.append(engine.step())
        taken = block or taken
        counted |= held(optimizer=engine.held_state())
    outcome = {"losses": losses, "norms": norms, "weights": engine.weights(), "held": counted}
    return outcome | {"peak_tensor_bytes": taken.peak}


def _build(ranks: Ranks, parts: list[Part], p: float, frozen: bool = False) -> tuple[System, Engine, Any]:
    """The model on its engine; with `frozen` all but its head and one matrix is frozen, in bf16."""
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        attn_implementation="eager", hidden_dropout_prob=p, attention_probs_dropout_prob=p, num_labels=3,
    )  # fmt: skip
    model = hf.BertForSequenceClassification(config).train()
    for name, parameter in model.named_parameters():
        if frozen and name not in TRAINED:
            parameter.requires_grad_(False)
            parameter.data = parameter.data.bfloat16()
    replace_dropout(model, PackedDropout)
    processes = ranks.world_size
    system = System(SystemConfig(parts=parts, processes=processes))
    system.prepare(model)
    engine = system.engine(ranks, clip_norm=1.0)
    return system, engine, engine.prepare(model, partial(torch.optim.AdamW, lr=1e-2))


def _gradient(ranks: Ranks, system: System, engine: Engine, model: Any, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(3, 99, (GLOBAL_BATCH, 12), generator=generator)
    labels = ids.sum(1) % 3
    total = torch.zeros(())
    micro_batches = ranks.share(torch.arange(GLOBAL_BATCH)).chunk(MICRO_BATCHES)
    for rows in micro_batches:
        engine.begin_micro_batch(last=rows is micro_batches[-1])
        with system.forward():
            logits = model(input_ids=ids[rows]).logits.float()
            loss = F.cross_entropy(logits, labels[rows], reduction="sum") / GLOBAL_BATCH
        engine.backward(loss)
        total += loss.detach()
    return ranks.sum(total)


def _saved(ranks: Ranks, engine: Engine) -> tuple[Any, Any, Tensor]:
    """Returns the checkpoint that rank 0 writes, as every rank reads it, and this rank's generator."""
    whole: list[Any] = [(engine.weights(), ranks.gather(engine.state()))]
    if ranks.world_size > 1:
        dist.broadcast_object_list(whole)
    return *whole[0], torch.get_rng_state()
