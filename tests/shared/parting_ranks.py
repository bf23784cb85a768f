"""Two processes under ddp, of which each may train on what it has alone."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from forked_ranks import start_ranks
from pmexp.errors import UserError
from pmexp.systems.engines.ddp import Ddp
from pmexp.systems.ranks import Ranks, end_process


def run(folder: Path, part: bool) -> list[str]:
    """Takes a step on two ranks; returns what each was told, "" where nothing was wrong."""
    start_ranks(_worker, str(folder), part, processes=2)
    return [(folder / f"rank{rank}.txt").read_text() for rank in range(2)]


def _worker(rank: int, folder: str, part: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=2)
    torch.manual_seed(0)
    module = nn.Linear(4, 2)
    engine = Ddp(Ranks(rank, rank, 2), torch.device("cpu"), clip_norm=None, scale_loss=False)
    model = engine.prepare(module, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    if part:
        module.weight.register_post_accumulate_grad_hook(_update)
    torch.manual_seed(rank)
    engine.begin_micro_batch(last=True)
    engine.backward(model(torch.randn(3, 4)).square().sum())
    try:
        engine.step()
        told = ""
    except UserError as error:
        told = str(error)
    Path(folder, f"rank{rank}.txt").write_text(told)
    end_process(0)  # the end of the reducer waits for gloo's thread, and this one at times for Python's lock


def _update(weight: Tensor) -> None:
    """Takes the gradient that this process has alone, as its backward makes it."""
    assert weight.grad is not None
    weight.data.sub_(0.1 * weight.grad)
