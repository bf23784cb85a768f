"""The search for the largest batch: from a guess, within the time, and on a device that refuses."""

import gc
import io
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.largest import Largest, largest, limited, measure_largest
from pmexp.bench.gpu.stages import largest_batch
from pmexp.bench.gpu.workload import BASELINE, Size, Workload

CPU = torch.device("cpu")
TINY = Size("tiny", 4, 16, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99})  # fmt: skip


def tiny(variant: str = BASELINE) -> Workload:
    return Workload(TINY, "eager", "fp32", CPU, [variant])


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_the_bracket_is_a_thirty_second_wide_wherever_the_search_begins(most: int, start: int) -> None:
    fits, too_large = largest(lambda value: value <= most, start)
    assert too_large is not None
    assert fits <= most < too_large
    assert too_large - fits <= max(1, fits // 32)


@pytest.mark.parametrize("error", [0.97, 1.0, 1.03])
@pytest.mark.parametrize("most", [52, 90])
def test_a_good_guess_takes_few_tries(most: int, error: float) -> None:
    """A step at these sizes takes a second and the stage a minute."""
    tries: list[int] = []

    def has_room(value: int) -> bool:
        tries.append(value)
        return value <= most

    largest(has_room, round(most * error))
    assert len(tries) <= 5


def test_a_search_out_of_time_says_what_it_knows() -> None:
    answers = iter([True, None])
    assert largest(lambda value: next(answers), 10) == (10, None)
    answers = iter([None])
    assert largest(lambda value: next(answers), 10) == (0, None)


class Device:
    """Has room for `most` samples: one more and a step ends as on a device, in the middle of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workload: Workload, most: int) -> None:
        self.held: list[weakref.ref[Tensor]] = []  # tensors of steps that had no room
        self.batches: list[int] = []
        self._step, self._most = workload.step, most
        monkeypatch.setattr(workload, "step", self.step)

    def step(self, variant: str, batch: int, enter: Callable[[str], object] = lambda phase: None) -> Tensor:
        activations = torch.zeros(batch)
        self.held.append(weakref.ref(activations))
        self.batches.append(batch)
        if batch > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._step(variant, batch, enter)


def test_the_largest_batch_of_a_device_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tiny()
    device = Device(monkeypatch, workload, 13)
    assert measure_largest(workload, BASELINE, 2**30, 24, Budget(60)) == Largest(13, 14)
    gc.collect()
    assert [reference() for reference in device.held if reference() is not None] == []
    assert all(parameter.grad is None for parameter in workload._modules[BASELINE].parameters())


def test_the_guess_is_where_the_line_through_two_peaks_meets_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workload = tiny()
    device = Device(monkeypatch, workload, 50)

    class Peak:
        """A peak of 100 bytes, and 10 for each sample of the last batch."""

        def __init__(self, device: torch.device) -> None: ...

        def bytes(self) -> int:
            return 100 + 10 * device.batches[-1]

    monkeypatch.setattr("pmexp.bench.gpu.largest.PeakMemory", Peak)
    largest = measure_largest(workload, BASELINE, 610, 2**16, Budget(60))
    assert device.batches[4] == 49  # (0.98 * 610 - 100) / 10
    assert largest == Largest(50, 51)


def test_a_variant_without_room_for_one_sample_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tiny()
    Device(monkeypatch, workload, 0)
    with pytest.raises(torch.OutOfMemoryError):
        measure_largest(workload, BASELINE, 2**30, 24, Budget(60))


def test_an_error_that_is_none_of_memory_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tiny()
    device = Device(monkeypatch, workload, 50)

    def step(variant: str, batch: int) -> Tensor:
        if len(device.batches) >= 4:  # those of the guess
            raise RuntimeError("an illegal memory access was encountered")
        return device.step(variant, batch)

    monkeypatch.setattr(workload, "step", step)
    with pytest.raises(RuntimeError, match="illegal"):
        measure_largest(workload, BASELINE, 2**30, 24, Budget(60))


def test_a_step_that_is_too_long_for_the_time_that_is_left_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workload = tiny()
    device = Device(monkeypatch, workload, 50)
    now = 0.0

    def clock() -> float:
        return now

    def step(variant: str, batch: int) -> Tensor:
        nonlocal now
        now += batch
        return device.step(variant, batch)

    monkeypatch.setattr(workload, "step", step)
    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("pmexp.bench.gpu.largest._guess", lambda *_: 10)
    assert measure_largest(workload, BASELINE, 0, 2**16, Budget(31, clock)) == Largest(10, None)
    assert device.batches == [10]  # 11 samples take 11, and 22 have to be left


def test_the_allocator_may_take_what_is_free_and_what_it_has_less_what_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fractions: list[float] = []
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (70, 80))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 3)
    monkeypatch.setattr(
        "torch.cuda.set_per_process_memory_fraction", lambda fraction, device: fractions.append(fraction)
    )
    assert limited(torch.device("cuda", 0), 1, 10**9) == 72
    assert fractions == [72 / 80]


def test_the_stage_writes_a_row_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(largest_batch, "bert_large", lambda tiny: TINY)
    file = io.StringIO()
    largest_batch.measure(Bench(CPU, True, Budget(60), file))
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line for line in lines if line["kind"] in ("failed", "left_out")] == []
    rows = [line["cells"] for line in lines if line["kind"] == "row"]
    assert [row["variant"] for row in rows] == [BASELINE, "pm-drop-recompute", "pm-drop"]
    assert {(row["largest"], row["too_large"], row["times_baseline"]) for row in rows} == {(24, 25, 1.0)}
