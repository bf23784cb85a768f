"""Steps so small that launching them is most of their time: there each kernel and each call counts."""

import gc
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.captured import captured
from pmexp.bench.gpu.device_time import DeviceTimer, ratio_cells, rounds, wall_seconds
from pmexp.bench.gpu.same_losses import Step, replay_fault, variant_faults
from pmexp.bench.gpu.workload import BASELINE, NO_DROPOUT, SIZES, TORCH_MASKS, VARIANTS, Size, Workload

_SIZES = {"hidden_size": 312, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 1200}
TINYBERT = Size("tinybert", 32, 128, {**_SIZES, "vocab_size": 8192})
_BASE = replace(next(size for size in SIZES if size.name == "bert-base"), length=128)
_SMALLEST = Size("smallest", 2, 16, {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99})  # fmt: skip  # noqa: E501
_CASES = (  # size, samples, steps in a timing
    (TINYBERT, 8, 5),
    (TINYBERT, 32, 5),
    (_BASE, 32, 2),
)
_PRECISIONS = ("bf16", "fp32")
_VARIANTS = (BASELINE, NO_DROPOUT, *(variant for variant in VARIANTS if variant != BASELINE))
_PROFILED = (BASELINE, "pm-drop", "pm-drop-recompute")
_ATTENTION = "eager"  # the most dropouts of the two, and the most kernels
_ROUNDS, _WARM_UP, _REPLAYS = 15, 3, 4  # replays for each step of a timing


def measure(bench: Bench) -> None:
    cases = ((_SMALLEST, 2, 1),) if bench.tiny else _CASES
    work = [(precision, *case) for precision in _PRECISIONS for case in cases]
    parts = 2 * len(work)
    for graphs in (False, True):  # all captures later: one that fails may leave the generator unusable
        for precision, size, batch, steps in work:
            budget = bench.budget.part(max(1, parts // 2))
            parts -= 1
            what = f"{size.name}, batch {batch}, {precision}"
            with bench.part(what + ", CUDA graphs" * graphs):
                if graphs:
                    _measure_replays(bench, budget, size, batch, steps, precision)
                else:
                    _measure_eager(bench, budget, size, batch, steps, precision)
            _free()
    precision, size, batch, _ = work[0]
    with bench.part(f"launches, {size.name}"):
        _launches(bench, Workload(size, _ATTENTION, precision, bench.device, _PROFILED), batch)


def _measure_eager(bench: Bench, budget: Budget, size: Size, batch: int, steps: int, precision: str) -> None:
    every = (*_VARIANTS, TORCH_MASKS)  # the last one to compare nn.Dropout's losses with
    workload = Workload(size, _ATTENTION, precision, bench.device, every)
    for name in every:
        workload.step(name, batch)
    faults = variant_faults(workload, batch)
    what = f"{size.name}, batch {batch}, {precision}: losses are the same where the masks are"
    bench.check(what, not faults, "; ".join(f"{name}: {fault}" for name, fault in faults.items()))
    takers = {name: partial(workload.step, name, batch) for name in _VARIANTS if name not in faults}
    _measure(bench, budget, workload, batch, steps, takers, graph=False)


def _measure_replays(
    bench: Bench, budget: Budget, size: Size, batch: int, steps: int, precision: str
) -> None:
    what = f"{size.name}, batch {batch}, {precision}: CUDA graph of"
    if bench.device.type != "cuda":
        bench.left_out(f"{what} a step: needs CUDA")
        return
    workload = Workload(size, _ATTENTION, precision, bench.device, _VARIANTS, capturable=True)
    replays: dict[str, Step] = {}
    for name in _VARIANTS:
        with bench.part(f"{what} {name}"):
            replay = captured(workload, name, batch)
            fault = replay_fault(workload, name, batch, replay)
            bench.check(f"{what} {name}: replays are steps, with new masks each", fault is None, fault or "")
            if fault is None:
                replays[name] = replay
    _measure(bench, budget, workload, batch, _REPLAYS * steps, replays, graph=True)


def _measure(
    bench: Bench,
    budget: Budget,
    workload: Workload,
    batch: int,
    steps: int,
    takers: Mapping[str, Step],
    graph: bool,
) -> None:
    """Rows of the variants that `takers` take steps of: wall times in turn, then one of the device alone."""
    wall: dict[str, list[float]] = defaultdict(list)
    host: dict[str, list[float]] = defaultdict(list)
    for step in takers.values():
        for _ in range(_WARM_UP):
            step()
    for order in rounds(list(takers), 2 if bench.tiny else _ROUNDS, budget):
        for name in order:
            takers[name]()
            timed = wall_seconds(takers[name], steps, bench.device)
            wall[name].append(timed.seconds)
            host[name].append(timed.host_seconds)
    for name, step in takers.items():
        on_device = DeviceTimer(bench.device).time(step, 1)
        bench.row(
            "steps",
            model=workload.size.name,
            batch=batch,
            precision=workload.precision,
            graph=graph,
            variant=name,
            wall_ms=1e3 * statistics.median(wall[name]),
            host_ms=1e3 * statistics.median(host[name]),
            device_ms=1e3 * on_device.seconds if on_device.covered else None,
            **ratio_cells(wall[BASELINE], wall[name], "times_stock"),
            rounds=len(wall[name]),
        )


def _launches(bench: Bench, workload: Workload, batch: int) -> None:
    """What torch.profiler sees of one step of each variant."""
    on_cuda = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_cuda]
    for name in workload.variants:
        for _ in range(_WARM_UP):
            workload.step(name, batch)
    for name in workload.variants:
        with profile(activities=activities) as profiler:
            workload.step(name, batch)
            if on_cuda:
                torch.cuda.synchronize(bench.device)
        events = profiler.events() or []
        kernels = [event for event in events if event.device_type.name == "CUDA"]
        launches = [event for event in events if "LaunchKernel" in event.name]
        bench.row(
            "launches",
            variant=name,
            model=workload.size.name,
            batch=batch,
            precision=workload.precision,
            kernels=len(kernels),
            device_ms=sum(event.time_range.elapsed_us() for event in kernels) / 1e3,
            launches=len(launches),
            host_ms=sum(event.time_range.elapsed_us() for event in launches) / 1e3,
        )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
