"""Runs level=micro: checks every contender at every shape and dtype, then times it against nn.Dropout.

The contenders take turns in one process, in an order that is reversed at every round. A turn begins with
an untimed call (see timing.turn). The ratio to nn.Dropout is taken round by round, so that a slow spell
of the machine counts for both sides; the figure is the median of these ratios with its 95 % interval.
All checks come before all figures: a contender that fails one ends the benchmark.
"""

import statistics
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from pmexp.bench.bandwidth import BandwidthRow, bandwidth, copy_seconds
from pmexp.bench.checks import check
from pmexp.bench.contenders import BASELINE, Contender, contenders
from pmexp.bench.options import MicroOptions, Shape
from pmexp.bench.pairs import paired_ratio
from pmexp.bench.results import table, write
from pmexp.bench.timing import Effort, Timing, effort, turn
from pmexp.errors import UserError
from pmexp.measure.environment import environment
from pmexp.packed_dropout import backend
from pmexp.shown import counted

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}

Times = dict[str, dict[str, list[float]]]  # seconds by contender, phase and round


def run(options: MicroOptions, command: str, field: Sequence[Contender] | None = None) -> None:
    """Checks, measures, prints and, with `out`, writes. `field` takes part in place of `contenders`.

    Raises UserError for options that cannot be had here, ContenderFailed for a contender that is wrong.
    """
    device = _device(options.device)
    field = field or _chosen(contenders(options.p), options.contenders)
    served_by = backend(device)  # which builds what it takes, before anything is timed
    cells = list(product(options.sizes, options.dtypes))
    for shape, dtype in cells:
        x, grad = tensors(shape, dtype, device)
        for contender in _fitting(field, x):
            check(contender, x, grad, options.p)
    print(f"checked: {', '.join(contender.name for contender in field)}")
    print(f"packed dropout runs on: {served_by}")
    rows: list[Timing] = []
    shares: list[BandwidthRow] = []
    for shape, dtype in cells:
        x, grad = tensors(shape, dtype, device)
        amount = effort(x.numel(), device, options.quick)
        fitting = _fitting(field, x)
        timings = rows_of(_times(fitting, x, grad, amount), dtype, x)
        print(f"\n{table(timings)}\n{counted(amount.rounds, 'round')}", flush=True)
        for left_out in (contender for contender in field if contender not in fitting):
            print(f"{left_out.name} is left out above {left_out.largest:,} elements")
        rows += timings
        if device.type == "cuda":
            shares += bandwidth(timings, fitting, x, copy_seconds(x, amount))
    if options.out is not None:
        record = {"command": command, "p": options.p, **environment(device)}
        for path in write(options.out, rows, shares, record):
            print(path)


def tensors(shape: Shape, dtype: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns normal values and their upstream gradient, both of `shape`; no zeros, so that a zero after
    dropout was dropped."""
    generator = torch.Generator(device).manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator, device=device).to(_DTYPES[dtype]) for _ in range(2))
    return x.masked_fill_(x == 0, 1.0).requires_grad_(), grad


def _times(field: Sequence[Contender], x: Tensor, grad: Tensor, amount: Effort) -> Times:
    times: Times = {contender.name: {phase: [] for phase in contender.phases} for contender in field}
    for round_ in range(amount.rounds):
        for contender in field if round_ % 2 == 0 else reversed(field):
            for phase, seconds in turn(contender, x, grad, amount).items():
                times[contender.name][phase].append(seconds)
    return times


def rows_of(times: Times, dtype: str, x: Tensor) -> list[Timing]:
    """Returns a row for every contender and phase in `times`, measured on `x`."""
    rows = []
    for name, phases in times.items():
        for phase, seconds in phases.items():
            against = paired_ratio(times[BASELINE][phase], seconds)
            rows.append(
                Timing(
                    contender=name,
                    device=x.device.type,
                    dtype=dtype,
                    shape="x".join(map(str, x.shape)),
                    numel=x.numel(),
                    phase=phase,
                    ms=1e3 * statistics.median(seconds),
                    ratio=against.ratio,
                    low=against.low,
                    high=against.high,
                )
            )
    return rows


def _fitting(field: Sequence[Contender], x: Tensor) -> list[Contender]:
    return [contender for contender in field if x.numel() <= (contender.largest or x.numel())]


def _chosen(every: list[Contender], names: Sequence[str]) -> list[Contender]:
    """Returns the named contenders and the baseline, in the order of `every`; all where none is named."""
    known = [contender.name for contender in every]
    for name in names:
        if name not in known:
            raise UserError(f"contenders: {name!r} is unknown; allowed are {', '.join(known)}")
    wanted = {BASELINE, *(names or known)}
    return [contender for contender in every if contender.name in wanted]


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device: cuda is not available to this torch; set device=cpu or auto")
    return torch.device("cuda" if name != "cpu" and available else "cpu")
