"""Runs level=tempo: Tempo's GELU and LayerNorm beside the stock modules, packing a mask beside copying it.

Both sides of a pair take turns in one process, on the CPU, after a check that they compute the same.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pmexp.bench.options import TempoOptions
from pmexp.bench.pairs import alternate, paired_ratio
from pmexp.bench.results import write_record
from pmexp.errors import ContenderFailed
from pmexp.measure.environment import environment
from pmexp.packed_dropout import ops
from pmexp.systems.tempo import InplaceGELU, InplaceLayerNorm

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TOLERANCES = {"fp32": 1e-3, "bf16": 0.1}  # a gradient may be off by it: GELU's is so near its minimum
_WARM_UP = 2  # turns that do not count


@dataclass(frozen=True)
class TempoRow:
    """What one call took on either side: a line of tempo.csv."""

    what: str
    dtype: str
    shape: str
    ms: float  # the median of ours
    against_ms: float  # what the stock module or the copy took
    ratio: float  # the other's time over ours, the median of the pairs: above 1 ours is faster
    low: float  # where the 95 % interval of the ratio begins
    high: float  # where it ends


def run(options: TempoOptions, command: str) -> None:
    """Checks, measures, prints and, with `out`, writes. Raises ContenderFailed where gradients differ."""
    rows = []
    for dtype in _DTYPES:
        for name, stock, shape in _modules(options.tokens, _DTYPES[dtype]):
            rows += _both_ways(name, stock, shape, dtype, options.turns)
    mask = torch.rand(options.tokens, 4096) < 0.1
    packed, copied = _timed(lambda: ops.pack_bits(mask, 1)), _timed(mask.clone)
    rows.append(_row("mask packed", "bool", tuple(mask.shape), [packed, copied], options.turns))
    for row in rows:
        print(_line(row), flush=True)
    if options.out is not None:
        record = {"command": command, **environment(torch.device("cpu"))}
        for path in write_record(options.out, "tempo.csv", rows, record):
            print(path)


def _modules(tokens: int, dtype: torch.dtype) -> list[tuple[str, nn.Module, tuple[int, int]]]:
    norm = nn.LayerNorm(1024)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    return [
        ("GELU", nn.GELU(), (tokens, 4096)),
        ("GELU, tanh", nn.GELU("tanh"), (tokens, 4096)),
        ("LayerNorm", norm.to(dtype), (tokens, 1024)),
    ]


def _both_ways(name: str, stock: nn.Module, shape: tuple[int, int], dtype: str, turns: int) -> list[TempoRow]:
    ours = InplaceLayerNorm.like(stock) if isinstance(stock, nn.LayerNorm) else InplaceGELU(stock)
    x, grad = (torch.randn(shape).to(_DTYPES[dtype]) for _ in range(2))
    x.requires_grad_()
    forwards = [_timed(partial(module, x)) for module in (ours, stock)]
    backwards = [_backward(module, x, grad) for module in (ours, stock)]
    for actual, expected in zip(*(backward() for backward in backwards), strict=True):
        off = (actual - expected).norm() / expected.norm()
        if not off <= _TOLERANCES[dtype]:
            raise ContenderFailed(f"{name} fails its check at {dtype}: a gradient is off by {off:.1e} of it")
    timed = [_timed(backward) for backward in backwards]
    return [
        _row(f"{name}, forward", dtype, shape, forwards, turns),
        _row(f"{name}, backward", dtype, shape, timed, turns),
    ]


def _backward(module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    y, leaves = module(x), [x, *module.parameters()]
    return lambda: torch.autograd.grad(y, leaves, grad, retain_graph=True)


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    """Returns a function that calls `call` and returns the seconds that it took."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return timed


def _row(
    what: str,
    dtype: str,
    shape: tuple[int, ...],
    both: Sequence[Callable[[], float]],
    turns: int,
) -> TempoRow:
    """Measures `both`, ours and what it is compared with, which return the seconds that they took."""
    ours, against = both
    alternate(ours, against, _WARM_UP)
    seconds, of_the_other = alternate(ours, against, turns)
    paired = paired_ratio(of_the_other, seconds)
    ms, against_ms = (1e3 * statistics.median(each) for each in (seconds, of_the_other))
    shown = "x".join(map(str, shape))
    return TempoRow(what, dtype, shown, ms, against_ms, paired.ratio, paired.low, paired.high)


def _line(row: TempoRow) -> str:
    times = f"{row.ms:8.3f} ms against {row.against_ms:8.3f} ms"
    ratio = f"{row.ratio:.2f} times as fast [{row.low:.2f}, {row.high:.2f}]"
    return f"{row.what:<20} {row.dtype} {row.shape:<10} {times}, {ratio}"
