"""Measures how near dropout comes to the memory's speed, and what a call costs the host.

Figures are of passes through autograd, as in training; the table of kernels is without. 2**26 elements have
no room in the L2 cache, 2**23 and fewer do, as in a model.
"""

import statistics
from collections import defaultdict
from functools import partial

import torch
from torch import Tensor

from pmexp.bench.contenders import BACKWARD, BASELINE, BOTH, FORWARD
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.device_time import DeviceTimer, ratio_cells, rounds
from pmexp.bench.gpu.dropouts import DTYPES, TimedDropout, checked, tensors
from pmexp.bench.gpu.host_cost import measure_host_cost
from pmexp.bench.gpu.kernels import measure_kernels, measure_shapes
from pmexp.packed_dropout import torch_rng_record

_COPY = "copy"
_LARGE, _SMALL = 2**26, (2**10, 2**14, 2**17, 2**20, 2**23)
_TINY_LARGE, _TINY_SMALL = 2**12, (2**5, 2**8)
_PHASES = (FORWARD, BACKWARD, BOTH)

Seconds = dict[tuple[str, str], list[float]]  # one a round, by contender and phase


def measure(bench: Bench) -> None:
    timer = DeviceTimer(bench.device)
    try:
        _measure(bench, timer)
    finally:
        bench.note(f"how the masks of rng=torch came about: {torch_rng_record() or 'not on CUDA'}")
        if timer.too_short:
            bench.note(
                f"in {timer.too_short} timings not all calls were queued when the device began: "
                "the host's part is in them"
            )


def _measure(bench: Bench, timer: DeviceTimer) -> None:
    large, small = (_TINY_LARGE, _TINY_SMALL) if bench.tiny else (_LARGE, _SMALL)
    many, few = (3, 2) if bench.tiny else (31, 11)

    def bandwidth(dtype: str, numel: int, most_rounds: int) -> None:
        with bench.part(f"bandwidth, {dtype}, {numel} elements"):
            _bandwidth(bench, timer, dtype, numel, most_rounds)

    for dtype in ("bf16", "fp32"):
        bandwidth(dtype, large, many)
    for dtype in ("bf16", "fp32"):
        with bench.part(f"kernels, {dtype}"):
            measure_kernels(bench, timer, dtype, large, many)
    with bench.part("host's cost"):
        measure_host_cost(bench, many)
    for dtype in ("bf16", "fp32"):
        for numel in small:
            bandwidth(dtype, numel, few)
    bandwidth("fp16", large, few)
    with bench.part("shapes of kernels"):
        measure_shapes(bench, timer, "bf16", large, few)


def _bandwidth(bench: Bench, timer: DeviceTimer, dtype: str, numel: int, most_rounds: int) -> None:
    x, grad = tensors(numel, DTYPES[dtype], bench.device)
    field = checked(bench, x, grad, dtype)
    seconds: Seconds = defaultdict(list)
    source, target = x.detach(), torch.empty_like(x.detach())
    repeats = 2 if bench.tiny else min(20, max(10, 2**28 // numel))
    turns = {_COPY: partial(_copy_turn, timer, source, target, repeats, seconds)}
    for dropout in field:
        turns[dropout.name] = partial(_turn, timer, dropout, x, grad, repeats, seconds)
    for order in rounds(list(turns), most_rounds, bench.budget):
        for name in order:
            turns[name]()
    copy_bytes = 2 * numel * x.element_size()
    copy_s = statistics.median(seconds[_COPY, BOTH])
    bench.row(_COPY, dtype=dtype, elements=numel, us=1e6 * copy_s, GB_per_s=copy_bytes / copy_s / 1e9)
    for dropout in field:
        _row(bench, dropout, dtype, x, seconds)


def _turn(
    timer: DeviceTimer, dropout: TimedDropout, x: Tensor, grad: Tensor, repeats: int, seconds: Seconds
) -> None:
    """Adds one timing of each phase. An untimed call before leaves caches and allocator as this one does."""
    drop = dropout.contender.drop
    graphs: list[Tensor] = []

    def backward(y: Tensor) -> None:
        torch.autograd.grad(y, x, grad)

    def drop_all() -> None:
        graphs.clear()
        graphs.extend(drop(x) for _ in range(repeats))

    backward(drop(x))
    drop_all()
    calls = {
        FORWARD: timer.time(lambda: graphs.append(drop(x)), repeats, graphs.clear),
        BACKWARD: timer.time(lambda: backward(graphs.pop()), repeats, drop_all),
        BOTH: timer.time(lambda: backward(drop(x)), repeats),
    }
    for phase, timed in calls.items():
        seconds[dropout.name, phase].append(timed.seconds)


def _copy_turn(timer: DeviceTimer, source: Tensor, target: Tensor, repeats: int, seconds: Seconds) -> None:
    target.copy_(source)
    seconds[_COPY, BOTH].append(timer.time(lambda: target.copy_(source), repeats).seconds)


def _row(bench: Bench, dropout: TimedDropout, dtype: str, x: Tensor, seconds: Seconds) -> None:
    medians = {phase: statistics.median(seconds[dropout.name, phase]) for phase in _PHASES}
    moved = {FORWARD: dropout.moved(x), BACKWARD: dropout.moved(x), BOTH: 2 * dropout.moved(x)}
    both = seconds[dropout.name, BOTH]
    more_bytes = moved[BOTH] / (2 * x.numel() * x.element_size())  # than a copy's
    bench.row(
        "bandwidth",
        contender=dropout.name,
        dtype=dtype,
        elements=x.numel(),
        **{f"{phase}_us": 1e6 * medians[phase] for phase in _PHASES},
        **{f"{phase}_GB_per_s": moved[phase] / medians[phase] / 1e9 for phase in _PHASES},
        **ratio_cells(seconds[_COPY, BOTH], both, "share_of_copy", "share_", more_bytes),
        **ratio_cells(seconds[BASELINE, BOTH], both, "times_nn_dropout"),
        rounds=len(both),
    )
