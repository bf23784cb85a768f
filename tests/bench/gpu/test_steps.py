"""Steps variant beside variant: their rounds, their bytes, and a batch that has no room."""

import pytest
import torch

from pmexp.bench.gpu import device_time
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.device_time import Timed
from pmexp.bench.gpu.steps import measure_steps
from pmexp.bench.gpu.workload import BASELINE, VARIANTS, Size, Workload

CPU = torch.device("cpu")
TINY = Size("tiny", 4, 16, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99})  # fmt: skip
PROBABILITIES, HIDDEN = 4 * 2 * 16 * 16, 4 * 16 * 16  # elements of a mask at TINY's batch


def tiny(*variants: str) -> Workload:
    return Workload(TINY, "eager", "fp32", CPU, variants)


def test_bytes_that_are_saved_for_backward() -> None:
    rows = {row.variant: row for row in measure_steps(tiny(*VARIANTS), 1, Budget(60))[0]}
    elements = 5 * HIDDEN + 2 * PROBABILITIES
    assert rows[BASELINE].mask_elements == elements
    assert rows["pm-drop"].mask_bytes == rows["pm-drop-recompute"].mask_bytes == elements // 8
    assert rows["seed-only"].mask_bytes == 7 * 8
    saved = [rows[name].saved_bytes for name in (BASELINE, "pm-drop", "pm-drop-recompute")]
    assert saved == sorted(saved, reverse=True) and len(set(saved)) == 3


def test_nothing_that_is_counted_for_backward_lies_beside_a_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger may keep a graph alive: where it was taken before, a peak of 26 GB was one of 100."""
    workload = tiny(BASELINE, "pm-drop")
    did: list[str] = []
    step, ledger = workload.step, workload.saved_for_backward
    monkeypatch.setattr(workload, "step", lambda *given: (did.append("step"), step(*given))[1])
    monkeypatch.setattr(
        workload, "saved_for_backward", lambda *given: (did.append("ledger"), ledger(*given))[1]
    )
    measure_steps(workload, 3, Budget(60))
    assert did == ["step"] * (4 + 6) + ["ledger"] * 2


def test_rounds_end_with_the_time_but_not_before_there_is_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, order = 0.0, ""
    workload = tiny("baseline", "pm-drop")
    monkeypatch.setattr(device_time.time, "perf_counter", lambda: now)

    def step(variant: str, batch: int) -> torch.Tensor:
        nonlocal now, order
        now, order = now + 1, order + variant[0]
        return torch.zeros(())

    monkeypatch.setattr(workload, "step", step)
    # There are 4 s of warm-up, and 4 s are left for a round of 2.
    rows, _ = measure_steps(workload, 20, Budget(21, lambda: now))
    assert order == "bbpp" + 3 * "bppb" + "bp"
    assert [row.timed for row in rows] == [[Timed(1.0, 1.0)] * 7] * 2
    assert (rows[0].ms, rows[0].host_ms, rows[0].seconds) == (1000.0, 1000.0, [1.0] * 7)
    rows, _ = measure_steps(workload, 20, Budget(0))
    assert [len(row.seconds) for row in rows] == [6, 6]


def test_a_batch_without_room_is_halved_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tiny("baseline", "pm-drop")
    plain = workload.step

    def step(variant: str, batch: int) -> torch.Tensor:
        if batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(variant, batch)

    monkeypatch.setattr(workload, "step", step)
    rows, notes = measure_steps(workload, 1, Budget(60))
    assert [row.batch for row in rows] == [1, 1]
    halved = [f"tiny, eager, fp32: baseline has no room for a batch of {n}, which was halved" for n in (4, 2)]
    assert notes == halved
