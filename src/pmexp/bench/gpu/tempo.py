"""Tempo on and off: steps of BERT-Large, and its GELU and LayerNorm by themselves."""

from functools import partial

import torch
from torch import Tensor, nn

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.bert import AUTOCAST, HALF, bert
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.turns import in_turn
from pmexp.bench.gpu.ways import Way, Ways, distance
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.tempo import InplaceGELU, InplaceLayerNorm, apply_tempo

_STOCK, _TEMPO, _PACKED, _BOTH = "stock", "tempo", "pm-drop", "pm-drop + tempo"
_ROUNDS = 12
_FARTHEST = 2**-6  # of all gradients from stock's, relative: 8 times the unit of bfloat16
_ROWS = 16384  # of the modules' input: beyond the device's caches


def _packed(module: nn.Module) -> object:
    return replace_dropout(module, PackedDropout)


def _packed_tempo(module: nn.Module) -> None:
    replace_dropout(module, PackedDropout)
    apply_tempo(module)


_WAYS = {
    _STOCK: Way(),
    _TEMPO: Way(apply_tempo),
    _BOTH: Way(_packed_tempo),
    _PACKED: Way(_packed),
    "pm-drop + recompute": Way(partial(replace_dropout, dropout=PackedDropout, recompute=True)),
}


def tempo_steps(bench: Bench, budget: Budget, precision: str) -> None:
    """Rows of the table "tempo": each way of a step against stock. Checked against stock before."""
    ways = Ways(*bert(bench, precision), _WAYS)
    for expected, found in ((_STOCK, _TEMPO), (_PACKED, _BOTH)):
        _check_same(bench, ways, precision, expected, found)
    ledgers = {name: ways.saved_for_backward(name) for name in _WAYS}
    turns = in_turn(
        {name: partial(ways.step, name) for name in _WAYS}, bench.device, budget, _ROUNDS, repeats=2
    )
    for name, turn in turns.items():
        saved = ledgers[name].total_bytes / 2**20
        bench.row("tempo", precision=precision, step=name, saved_MiB=saved, **turn.cells())
    kept = {norm.keeps for norm in ways[_TEMPO].modules() if isinstance(norm, InplaceLayerNorm)}
    bench.note(f"Tempo's LayerNorm under {precision}: {' and '.join(sorted(filter(None, kept)))}")


def _check_same(bench: Bench, ways: Ways, precision: str, expected: str, found: str) -> None:
    """With the same masks: the loss bit for bit, the gradients as closely as Tempo says."""
    loss, gradients = ways.gradients(expected)
    other_loss, other_gradients = ways.gradients(found)
    off = distance(other_gradients, gradients)
    what = f"{found} has the loss of {expected} under {precision}, bit for bit"
    bench.check(what, torch.equal(loss, other_loss), f"{other_loss.item()} against {loss.item()}")
    what = f"{found} has the gradients of {expected} under {precision}, within {_FARTHEST:.3g} of their norm"
    bench.check(what, off <= _FARTHEST, f"{off:.3g}")


def tempo_modules(bench: Bench, budget: Budget) -> None:
    """Rows of the table "tempo_modules": GELU and LayerNorm of BERT-Large, forward and backward alone."""
    rows = 64 if bench.tiny else _ROWS
    with torch.device(bench.device):
        gelu, norm = nn.GELU(), nn.LayerNorm(1024)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    cases = [
        (4096, torch.bfloat16, gelu, InplaceGELU(gelu)),
        (4096, torch.float32, gelu, InplaceGELU(gelu)),
        (1024, torch.float32, norm, InplaceLayerNorm.like(norm)),
    ]
    for left, (width, dtype, stock, inplace) in zip(range(len(cases), 0, -1), cases, strict=True):
        name = f"{type(stock).__name__} of {rows:,} x {width:,} {str(dtype).removeprefix('torch.')}"
        x = torch.randn(rows, width, device=bench.device, dtype=dtype, requires_grad=True)
        grad = torch.randn_like(x)
        modules: dict[str, nn.Module] = {"stock": stock, "tempo": inplace}
        outputs, gradients = zip(*(_both(module, x, grad) for module in modules.values()), strict=True)
        off = distance([gradients[1]], [gradients[0]])
        bench.check(f"Tempo's {name}: the output is stock's, bit for bit", torch.equal(*outputs))
        bench.check(
            f"Tempo's {name}: the gradient is stock's, within {_FARTHEST:.3g}", off <= _FARTHEST, f"{off:.3g}"
        )
        for phase, call in {"forward": _forward, "forward and backward": _both}.items():
            calls = {key: partial(call, module, x, grad) for key, module in modules.items()}
            part = budget.part(2 * left)
            for key, turn in in_turn(calls, bench.device, part, _ROUNDS, repeats=5).items():
                bench.row("tempo_modules", of=name, phase=phase, module=key, **turn.cells())


def _forward(module: nn.Module, x: Tensor, grad: Tensor) -> Tensor:
    y: Tensor = module(x)
    return y


def _both(module: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the input's gradient."""
    y: Tensor = module(x)
    return y.detach(), torch.autograd.grad(y, x, grad)[0]


def tempo(bench: Bench, budget: Budget) -> None:
    """Under autocast, with weights in bf16, and the modules by themselves."""
    precisions = (AUTOCAST, HALF)
    for left, precision in zip((3, 2), precisions, strict=True):
        with bench.part(f"Tempo, {precision}"):
            tempo_steps(bench, budget.part(left), precision)
    with bench.part("Tempo's GELU and LayerNorm"):
        tempo_modules(bench, budget)
