"""Times steps of BERT-Large with activations kept in the CPU's memory, and without."""

from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.bert import AUTOCAST, bert
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.turns import in_turn, waits_for_device
from pmexp.bench.gpu.ways import Way, Ways
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.offload import Offload

_BATCH = 4  # samples: all that a step saves goes through the bus twice
_ROUNDS = 6


def offloading(bench: Bench, budget: Budget) -> None:
    """Writes the table "offload": each way of a step against stock. Where it saves changes no gradient."""
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
    steps = Ways(*bert(bench, AUTOCAST, _BATCH), ways)
    for stock, offloaded in (("stock", "offload"), ("pm-drop", "pm-drop + offload")):
        with bench.part(f"{offloaded} against {stock}"):
            bench.check(*_same(steps, stock, offloaded))
    calls = {name: partial(steps.step, name) for name in ways}
    for name, turn in in_turn(bench, calls, budget, _ROUNDS).items():
        kept_by = "pm-drop" if "pm-drop" in name else "stock"  # a ledger sees nothing through other hooks
        saved = steps.saved_for_backward(kept_by).total_bytes / 2**20
        waits = waits_for_device(bench, partial(steps.step, name))
        cells = {**turn.cells(), "saved_MiB": saved, "waits_for_device": waits}
        bench.row("offload", batch=_BATCH, step=name, **cells)


def _same(steps: Ways, stock: str, offloaded: str) -> tuple[str, bool, str]:
    """Returns a check's claim, whether it holds, and its detail: loss and gradients are equal bit for bit
    where two steps of `stock` are, as not all kernels sum in one order."""
    first, again, moved = (_numbers(steps, name) for name in (stock, stock, offloaded))
    repeatable = [torch.equal(a, b) for a, b in zip(first, again, strict=True)]
    equal = [torch.equal(a, b) for a, b in zip(first, moved, strict=True)]
    held = sum(repeatable) > 1 and all(e for e, r in zip(equal, repeatable, strict=True) if r)
    claim = f"{offloaded} has the loss and the gradients of {stock}, bit for bit where two steps of it agree"
    return claim, held, f"{sum(equal)} of the {sum(repeatable)} that agree, among {len(equal)}"


def _numbers(steps: Ways, name: str) -> list[Tensor]:
    loss, gradients = steps.gradients(name)
    return [loss, *gradients]
