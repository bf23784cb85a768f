"""Times Tempo on and off: steps of BERT-Large, and its GELU and LayerNorm by themselves."""

from collections import Counter
from functools import partial

import torch
from torch import Tensor, nn

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.bert import AUTOCAST, BATCH, HALF, bert
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.leftovers import free_memory
from pmexp.bench.gpu.turns import in_turn, waits_for_device
from pmexp.bench.gpu.ways import Way, Ways, distance
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.tempo import InplaceGELU, InplaceLayerNorm, Tempo

_STOCK, _TEMPO, _PACKED, _BOTH = "stock", "tempo", "pm-drop", "pm-drop + tempo"
_ROUNDS = 8
_FARTHEST = 2**-5  # largest relative distance from stock's gradients; 24 layers in bfloat16 take a third
_ROWS = 16384  # make the modules' input larger than the device's caches


def _packed_tempo(module: nn.Module) -> None:
    replace_dropout(module, PackedDropout)
    Tempo().prepare(module)


_WAYS = {
    _STOCK: Way(),
    _TEMPO: Way(Tempo().prepare),
    _BOTH: Way(_packed_tempo),
    _PACKED: Way(partial(replace_dropout, dropout=PackedDropout)),
    "pm-drop + recompute": Way(partial(replace_dropout, dropout=PackedDropout, recompute=True)),
}


def tempo(bench: Bench, budget: Budget) -> None:
    """Writes the tables "tempo" (under autocast, and with weights in bf16) and "tempo_modules"."""
    for left, precision in ((3, AUTOCAST), (2, HALF)):
        with bench.part(f"Tempo under {precision}"):
            _steps(bench, budget.part(left), precision)
        free_memory()
    with bench.part("Tempo's GELU and LayerNorm"):
        _modules(bench, budget)


def _steps(bench: Bench, budget: Budget, precision: str) -> None:
    """Times each way of a step against stock, once it was compared with it."""
    ways = Ways(*bert(bench, precision, BATCH), _WAYS)
    for expected, ours in ((_STOCK, _TEMPO), (_PACKED, _BOTH)):
        with bench.part(f"{ours} against {expected} under {precision}"):
            _check_same(bench, ways, precision, expected, ours)
    turns = in_turn(bench, {name: partial(ways.step, name) for name in _WAYS}, budget, _ROUNDS, repeats=2)
    for name, turn in turns.items():
        saved = ways.saved_for_backward(name).total_bytes / 2**20
        syncs = waits_for_device(bench, partial(ways.step, name))
        cells = {**turn.cells(), "saved_MiB": saved, "waits_for_device": syncs}
        bench.row("tempo", precision=precision, batch=BATCH, step=name, **cells)
    lines = Counter(Tempo().record(ways[_BOTH]).values())
    words = "; ".join(f"{count} x {line}" for line, count in lines.items())
    bench.note(f"What {_BOTH} did under {precision}: {words}")


def _check_same(bench: Bench, ways: Ways, precision: str, expected: str, ours: str) -> None:
    """Checks, under the same masks, the loss bit for bit, the gradients as closely as Tempo says."""
    loss, gradients = ways.gradients(expected)
    other_loss, other_gradients = ways.gradients(ours)
    off = distance(other_gradients, gradients)
    what = f"{ours} has the loss of {expected} under {precision}, bit for bit"
    bench.check(what, torch.equal(loss, other_loss), f"{other_loss.item()} against {loss.item()}")
    what = f"{ours} has the gradients of {expected} under {precision}, within {_FARTHEST:.3g} of their norm"
    bench.check(what, off <= _FARTHEST, f"{off:.3g}")


def _modules(bench: Bench, budget: Budget) -> None:
    """Times BERT-Large's GELU and LayerNorm alone: forward, and forward and backward."""
    with torch.device(bench.device):
        gelu, norm = nn.GELU(), nn.LayerNorm(1024)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    cases = (
        (4096, torch.bfloat16, gelu, InplaceGELU(gelu)),
        (1024, torch.float32, norm, InplaceLayerNorm.like(norm)),
        (4096, torch.float32, gelu, InplaceGELU(gelu)),
    )
    for done, (width, dtype, stock, inplace) in enumerate(cases):
        rows = 64 if bench.tiny else _ROWS
        x = torch.randn(rows, width, device=bench.device, dtype=dtype, requires_grad=True)
        grad = torch.randn_like(x)
        name = f"{type(stock).__name__} of {rows:,} x {width:,} {str(dtype).removeprefix('torch.')}"
        with bench.part(f"Tempo's {name}"):
            _check_module(bench, name, _both(stock, x, grad), _both(inplace, x, grad))
            part = budget.part(len(cases) - done)
            calls = {
                "stock": partial(_both, stock, x, grad),
                "tempo": partial(_both, inplace, x, grad),
                "stock, forward alone": partial(stock, x),
                "tempo, forward alone": partial(inplace, x),
            }
            for key, turn in in_turn(bench, calls, part, _ROUNDS, repeats=5).items():
                bench.row("tempo_modules", of=name, module=key, ms=turn.ms, above_start_MiB=turn.above_MiB)


def _check_module(bench: Bench, name: str, expected: list[Tensor], got: list[Tensor]) -> None:
    bench.check(f"Tempo's {name}: the output is stock's, bit for bit", torch.equal(expected[0], got[0]))
    off = distance(got[1:], expected[1:])
    what = f"Tempo's {name}: the gradient is stock's, within {_FARTHEST:.3g} of its norm"
    bench.check(what, off <= _FARTHEST, f"{off:.3g}")


def _both(module: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Returns the output and the input's gradient."""
    y: Tensor = module(x)
    return [y.detach(), torch.autograd.grad(y, x, grad)[0]]
