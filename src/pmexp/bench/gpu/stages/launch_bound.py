"""Times steps so small that launching them is most of their time: there each kernel and each call counts."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.captured import captured
from pmexp.bench.gpu.device_time import (
    FEWEST_FOR_AN_INTERVAL,
    DeviceTimer,
    Timed,
    ratio_cells,
    rounds,
    wall_seconds,
)
from pmexp.bench.gpu.leftovers import free_memory
from pmexp.bench.gpu.same_losses import Step, replay_fault, variant_faults
from pmexp.bench.gpu.workload import BASELINE, NO_DROPOUT, SIZES, TORCH_MASKS, VARIANTS, Size, Workload

_SIZES = {"hidden_size": 312, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 1200}
TINYBERT = Size("tinybert", 32, 128, {**_SIZES, "vocab_size": 8192})
_BASE = replace(next(size for size in SIZES if size.name == "bert-base"), length=128)
SMALLEST = Size("smallest", 2, 16, {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99})  # fmt: skip  # noqa: E501
_VARIANTS = (BASELINE, NO_DROPOUT, *(variant for variant in VARIANTS if variant != BASELINE))
_PROFILED = (BASELINE, "pm-drop", "pm-drop-recompute")
_ATTENTION = "eager"  # the most dropouts of the two, and the most kernels
_ROUNDS, _MOST_REPLAYS = 15, 40  # rounds at most, of steps launched one kernel at a time, and of replays
_WARM_UP = 3


@dataclass(frozen=True)
class LaunchCase:
    """One model at one batch, its variants' steps launched one kernel at a time or as CUDA graphs."""

    precision: str
    size: Size
    batch: int  # samples
    graph: bool
    steps: int  # in a timing
    share: int  # part of the stage's time, in seconds where it has all of its own

    def __str__(self) -> str:
        graphs = ", CUDA graphs" * self.graph
        return f"{self.size.name}, batch {self.batch}, {self.precision}{graphs}"


def _cases() -> list[LaunchCase]:
    """Lists the cases; what is used most comes first: bf16 before fp32, and the batch of 32."""
    cases = []
    for precision in ("bf16", "fp32"):
        cases += [
            LaunchCase(precision, TINYBERT, 32, False, 2, 9),
            LaunchCase(precision, _BASE, 32, False, 1, 13),
            LaunchCase(precision, TINYBERT, 32, True, 10, 7),
            LaunchCase(precision, _BASE, 32, True, 2, 12),
            LaunchCase(precision, TINYBERT, 8, False, 2, 8),
            LaunchCase(precision, TINYBERT, 8, True, 10, 6),
        ]
    return cases


def measure(bench: Bench) -> None:
    cases = _cases()
    if bench.tiny:
        cases = [LaunchCase(p, SMALLEST, 2, graph, 1, 1) for p in ("bf16", "fp32") for graph in (False, True)]
    pieces = {str(case): partial(_measure_case, left=cases[place:]) for place, case in enumerate(cases)}
    bench.in_order({**pieces, f"launches, {cases[0]}": partial(_launches, case=cases[0])})


def _measure_case(bench: Bench, left: Sequence[LaunchCase]) -> None:
    """Measures the first of the cases that are left, in its share of the time that is left."""
    case = left[0]
    budget = Budget(bench.budget.left * case.share / sum(later.share for later in left))
    try:
        (_measure_replays if case.graph else _measure_eager)(bench, budget, case)
    finally:
        free_memory()


def _measure_eager(bench: Bench, budget: Budget, case: LaunchCase) -> None:
    every = (*_VARIANTS, TORCH_MASKS)  # the last one to compare nn.Dropout's losses with
    workload = Workload(case.size, _ATTENTION, case.precision, bench.device, every)
    for name in every:
        workload.step(name, case.batch)
    faults = variant_faults(workload, case.batch)
    detail = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
    bench.check(f"{case}: losses are the same where the masks are", not faults, detail)
    takers = {name: partial(workload.step, name, case.batch) for name in _VARIANTS if name not in faults}
    measure_steps(bench, budget, case, takers, _ROUNDS)


def _measure_replays(bench: Bench, budget: Budget, case: LaunchCase) -> None:
    if bench.device.type != "cuda":
        bench.left_out(f"{case}: needs CUDA")
        return
    workload = Workload(case.size, _ATTENTION, case.precision, bench.device, _VARIANTS, capturable=True)
    replays: dict[str, Step] = {}
    for name in _VARIANTS:
        with bench.part(f"{case}: {name}"):
            replay = captured(workload, name, case.batch)
            fault = replay_fault(workload, name, case.batch, replay)
            what = f"{case}: replays of {name} are steps, with new masks each"
            bench.check(what, fault is None, fault or "")
            if fault is None:
                replays[name] = replay
    measure_steps(bench, budget, case, replays, _MOST_REPLAYS)


def measure_steps(
    bench: Bench, budget: Budget, case: LaunchCase, takers: Mapping[str, Step], most: int
) -> None:
    """Writes rows of the variants that `takers` take steps of.

    One is of the device alone; then wall times in turn, in as many rounds at least as an interval needs."""
    timer, timed = DeviceTimer(bench.device), {name: list[Timed]() for name in takers}
    for step in takers.values():
        for _ in range(_WARM_UP):
            step()
    on_device = {name: timer.time(step, 1) for name, step in takers.items()}
    try:
        for order in rounds(list(takers), 2 if bench.tiny else most, budget, FEWEST_FOR_AN_INTERVAL):
            for name in order:
                takers[name]()
                timed[name].append(wall_seconds(takers[name], case.steps, bench.device))
    finally:  # also where the time is up: of the rounds that are whole
        whole = min(map(len, timed.values()), default=0)
        for name in takers if whole else ():
            _row(bench, case, name, on_device[name], timed[name][:whole], timed.get(BASELINE, [])[:whole])


def _row(
    bench: Bench, case: LaunchCase, name: str, on_device: Timed, timed: list[Timed], baseline: list[Timed]
) -> None:
    wall = [one.seconds for one in timed]
    bench.row(
        "steps",
        model=case.size.name,
        batch=case.batch,
        precision=case.precision,
        graph=case.graph,
        variant=name,
        wall_ms=1e3 * statistics.median(wall),
        host_ms=1e3 * statistics.median(one.host_seconds for one in timed),
        device_ms=1e3 * on_device.seconds if on_device.covered else None,
        **ratio_cells([one.seconds for one in baseline], wall, "times_stock"),
        rounds=len(wall),
    )


def _launches(bench: Bench, case: LaunchCase) -> None:
    """Writes kernels, launches and their times that torch.profiler sees in one step of each variant."""
    workload, batch = Workload(case.size, _ATTENTION, case.precision, bench.device, _PROFILED), case.batch
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
