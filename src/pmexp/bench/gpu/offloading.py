"""Activations in the CPU's memory: steps of BERT-Large with and without."""

from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.bert import AUTOCAST, bert
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.turns import in_turn
from pmexp.bench.gpu.ways import Way, Ways
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.offload import Offload

_ROUNDS = 6


def offloading(bench: Bench, budget: Budget) -> None:
    """Rows of the table "offload": each way of a step against stock. Where it saves changes no gradient."""
    packed = partial(replace_dropout, dropout=PackedDropout)
    around = partial(Offload().forward, bench.device)
    to_cpu = partial(save_on_cpu, pin_memory=bench.device.type == "cuda")
    ways = {
        "stock": Way(),
        "offload": Way(around=around),
        "pm-drop + offload": Way(packed, around),
        "pm-drop": Way(packed),
        "torch's save_on_cpu": Way(around=to_cpu),
    }
    steps = Ways(*bert(bench, AUTOCAST), ways)
    for stock, offloaded in (("stock", "offload"), ("pm-drop", "pm-drop + offload")):
        bench.check(*_same(steps, stock, offloaded))
    calls = {name: partial(steps.step, name) for name in ways}
    turns = in_turn(calls, bench.device, budget, _ROUNDS)
    for name, turn in turns.items():
        bench.row("offload", step=name, **turn.cells())
    if missing := [name for name in ways if name not in turns]:
        bench.left_out(f"offload: {', '.join(missing)}: no time was left to warm up")


def _same(steps: Ways, stock: str, offloaded: str) -> tuple[str, bool, str]:
    """Bit for bit, in the gradients that two steps of `stock` agree in: some sum in an order of their own."""
    first, again, found = (_numbers(steps, name) for name in (stock, stock, offloaded))
    repeatable = [torch.equal(a, b) for a, b in zip(first, again, strict=True)]
    equal = [torch.equal(a, b) for a, b in zip(first, found, strict=True)]
    held = sum(repeatable) > 1 and all(e for e, r in zip(equal, repeatable, strict=True) if r)
    what = f"{offloaded} has the loss and the gradients of {stock}, bit for bit where two steps of it agree"
    return what, held, f"{sum(equal)} of the {sum(repeatable)} that agree, among {len(equal)}"


def _numbers(steps: Ways, name: str) -> list[Tensor]:
    loss, gradients = steps.gradients(name)
    return [loss, *gradients]
