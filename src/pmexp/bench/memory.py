"""Runs level=memory: what dropped operands made again from bits save and cost in training steps on the CPU.

First, ways that drop with the same masks must have the same loss and gradients, bit for bit: one without them
ends the benchmark without a figure. Then bytes are counted twice: by the ledger of what autograd saves and by
the storages that a forward leaves alive. At last the ways take steps in turn, in an order that is reversed at
every round; ratios are taken round by round.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from pmexp.bench.memory_models import QUICK, Sizes, Trained
from pmexp.bench.memory_table import MemoryRow, table
from pmexp.bench.memory_workloads import (
    PACKED,
    REBUILT,
    STOCK,
    STOCK_MASKS,
    WAYS,
    WORKLOADS,
    MemoryModel,
    WayToDrop,
)
from pmexp.bench.options import MemoryOptions
from pmexp.bench.pairs import median_interval, paired_ratio
from pmexp.bench.results import write_record
from pmexp.errors import ContenderFailed, UserError
from pmexp.measure.environment import environment
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import backend
from pmexp.simulation import LiveBytes


def run(options: MemoryOptions, command: str, ways: Sequence[WayToDrop] = WAYS) -> None:
    """Checks, measures, prints and, with `out`, writes memory.csv and environment.json.

    Raises UserError for a model that is unknown, ContenderFailed for a way with another loss or gradient.
    """
    workloads = _chosen(options.models)
    backend(torch.device("cpu"))  # builds what it takes, before anything is timed
    rows: list[MemoryRow] = []
    for workload in workloads:
        sizes = QUICK if options.quick else workload.sizes
        check(workload, sizes, ways)
        measured = _measured(workload, sizes, ways, options.steps)
        targets = () if options.quick else workload.targets
        print(f"{table(workload, sizes, measured, targets)}\n", flush=True)
        rows += measured
    record = {"command": command, "steps": options.steps, **environment(torch.device("cpu"))}
    versions = f"torch {record['version_torch']}, transformers {record['version_transformers']}"
    print(
        f"{record['cpu']}, {record['threads']} threads, {versions}; {options.steps} steps of each; {command}"
    )
    if options.out is not None:
        for path in write_record(options.out, "memory.csv", rows, record):
            print(path)


def check(workload: MemoryModel, sizes: Sizes, ways: Sequence[WayToDrop]) -> None:
    """Raises ContenderFailed unless ways with the same masks have the same loss and gradients, bit for bit.

    Ways that draw packed dropout's masks are compared with plain packed dropout, those of STOCK_MASKS with
    stock. For a way whose gradients are not exact the loss is compared.
    """
    plain = {way.name: way for way in WAYS}
    by_packed = [way for way in ways if way.p and way.name != STOCK]
    for reference, others in ((PACKED, by_packed), (STOCK, STOCK_MASKS)):
        expected = _results(workload, sizes, plain[reference])
        for way in others:
            results = _results(workload, sizes, way) or expected  # it has no use there
            equal = [torch.equal(one, other) for one, other in zip(expected, results, strict=False)]
            equal.append(len(expected) == len(results))
            if not all(equal if way.exact else equal[:1]):
                raise ContenderFailed(
                    f"{way.name} fails its check in {workload.name}: with the same masks it has not the "
                    f"{'gradients' if equal[0] else 'loss'} of {reference}"
                )


def _results(workload: MemoryModel, sizes: Sizes, way: WayToDrop) -> list[Tensor]:
    """The loss and every gradient; nothing of a way that changes nothing in this model."""
    trained = _made(workload, sizes, way)
    if trained is None:
        return []
    torch.manual_seed(1)
    loss = _loss(workload, trained)
    loss.backward()
    return [loss.detach(), *(part.grad for part in trained.parameters() if part.grad is not None)]


def _measured(workload: MemoryModel, sizes: Sizes, ways: Sequence[WayToDrop], steps: int) -> list[MemoryRow]:
    models = {way.name: made for way in ways if (made := _made(workload, sizes, way)) is not None}
    saved = {name: _saved(workload, trained) for name, trained in models.items()}
    alive = {name: _alive(workload, trained) for name, trained in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(steps):
        for name in models if round_ % 2 == 0 else reversed(models):
            seconds[name].append(_step(workload, models[name]))
    rows = []
    for name in models:
        median, low, high = median_interval(seconds[name])
        against = paired_ratio(seconds[REBUILT], seconds[name])
        rows.append(
            MemoryRow(
                model=workload.name,
                way=name,
                saved_bytes=saved[name],
                alive_bytes=alive[name][0],
                peak_bytes=alive[name][1],
                ms=1e3 * median,
                ms_low=1e3 * low,
                ms_high=1e3 * high,
                rebuilt_saved=saved[REBUILT] / saved[name],
                rebuilt_time=against.ratio,
                rebuilt_time_low=against.low,
                rebuilt_time_high=against.high,
            )
        )
    return rows


def _made(workload: MemoryModel, sizes: Sizes, way: WayToDrop) -> Trained | None:
    """The model, the same weights each time; None where the way changes nothing in it.

    It has taken a step, which settles what reading the code does not show, and compares what is made again.
    """
    trained = workload.build(way.p, sizes).train()
    if not way.change(trained):
        return None
    _step(workload, trained)
    return trained


def _loss(workload: MemoryModel, trained: Trained) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=workload.autocast):
        loss: Tensor = trained()
    return loss


def _saved(workload: MemoryModel, trained: Trained) -> int:
    """Bytes that autograd saves in a forward."""
    with SavedForBackward(trained) as ledger:
        _loss(workload, trained)
    return ledger.total_bytes


def _alive(workload: MemoryModel, trained: Trained) -> tuple[int, int]:
    """Bytes of storages that are alive after a forward and were not before, the loss apart, and the peak of
    such bytes in the whole step, gradients among them."""
    counter = LiveBytes()
    counter.assign((*trained.parameters(), *trained.buffers()), "parameters")
    with counter:
        counter.enter("step")
        loss = _loss(workload, trained)
        held = sum(counter.live.values()) - loss.untyped_storage().nbytes()
        loss.backward()
    trained.zero_grad()
    there = counter.live["parameters"]
    return held - there, counter.peaks["step"].total - there


def _step(workload: MemoryModel, trained: Trained) -> float:
    """Takes a step and returns its seconds, forward and backward."""
    began = time.perf_counter()
    _loss(workload, trained).backward()
    seconds = time.perf_counter() - began
    trained.zero_grad()
    return seconds


def _chosen(names: Sequence[str]) -> list[MemoryModel]:
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names:
        if name not in known:
            raise UserError(f"models: {name!r} is unknown; allowed are {', '.join(known)}")
    return [known[name] for name in names] or list(WORKLOADS)
