"""BERT-Large's stage, tiny and on the CPU: the simulated step is the measured one, and what is written."""

import io
import json
from itertools import product
from typing import Any

import pytest
import torch

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.simulated import AT_REST, PHASES, measured_step, simulated_step
from pmexp.bench.gpu.stages import memory
from pmexp.bench.gpu.workload import BASELINE, CHECKPOINTING, PUT_IN, TORCH_MASKS, VARIANTS, Size, Workload
from pmexp.simulation import LiveBytes

CPU = torch.device("cpu")
TINY = Size("tiny", 4, 16, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 2000})  # fmt: skip


@pytest.mark.parametrize(
    ("attention", "variant"),
    [("sdpa", "pm-drop"), *(("eager", name) for name in PUT_IN if name != TORCH_MASKS)],
)
def test_the_simulated_step_has_the_bytes_of_the_real_one_in_each_phase(attention: str, variant: str) -> None:
    """Logits are what counts most here: no copy of them lies beside the loss that the real step has let go."""
    workload = Workload(TINY, attention, "bf16", CPU, [variant])
    counter = LiveBytes()
    counter.follow(workload._modules[variant], workload._optimizer)
    with counter:
        for _ in range(2):
            counter.forget_peaks()
            workload.step(variant, TINY.batch, counter.enter)
    found = simulated_step(TINY, attention, "bf16", variant, "cpu")
    real = {phase: peak.total for phase, peak in counter.peaks.items()}
    assert {phase: found.phases[phase] for phase in real} == pytest.approx(real, rel=0.01)
    assert found.peak_bytes == max(found.phases.values())


def test_parameters_and_state_are_there_before_a_step() -> None:
    """AdamW has two numbers a parameter, and a step count a tensor of them."""
    workload = Workload(TINY, "eager", "bf16", CPU, [BASELINE])
    module = workload._modules[BASELINE]
    parameters, buffers = (list(tensors) for tensors in (module.parameters(), module.buffers()))
    expected = sum(tensor.nbytes for tensor in (*parameters, *buffers))
    expected += sum(2 * parameter.nbytes + 4 for parameter in parameters)
    assert simulated_step(TINY, "eager", "bf16", BASELINE, "cpu").phases[AT_REST] == expected


def test_a_measured_step_has_a_peak_for_each_phase() -> None:
    workload = Workload(TINY, "eager", "bf16", CPU, [BASELINE])
    found = measured_step(workload, BASELINE)
    assert tuple(found.phases) == PHASES
    assert found.peak_bytes == max(found.phases.values()) > 0
    assert (found.reserved_bytes, found.requested_bytes) == (None, None)


def test_the_stage_writes_what_it_found_and_a_simulation_that_fails_costs_its_own_row_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def simulated(size: Size, attention: str, precision: str, variant: str, like: str) -> Any:
        if variant == "seed-only":
            raise RuntimeError("an internal of torch is elsewhere")
        return simulated_step(size, attention, precision, variant, like)

    monkeypatch.setattr(memory, "simulated_step", simulated)
    monkeypatch.setattr(memory, "bert_large", lambda tiny: TINY)
    of_eager = {"stock": BASELINE, "seed-only": "seed-only", "checkpointing": CHECKPOINTING}
    monkeypatch.setattr(memory, "_SIMULATED", {"eager": of_eager, "sdpa": {"sdpa": BASELINE}})
    file = io.StringIO()
    memory.measure(Bench(CPU, True, Budget(600), file))
    found = [json.loads(line) for line in file.getvalue().splitlines()]
    failed = [line["text"] for line in found if line["kind"] in ("failed", "left_out")]
    assert failed == ["simulated peak, seed-only: RuntimeError: an internal of torch is elsewhere"]
    assert [line["held"] for line in found if line["kind"] == "check"] == [True, True]
    rows = [line["cells"] for line in found if line.get("table") == "simulated"]
    assert [row["configuration"] for row in rows] == ["stock", "checkpointing", "sdpa"]
    steps = [line["cells"] for line in found if line.get("table") == "steps"]
    assert [(row["attention"], row["variant"]) for row in steps] == list(product(("eager", "sdpa"), VARIANTS))
    masks = {row["variant"]: row["mask_bytes_an_element"] for row in steps}
    assert masks["pm-drop"] == masks["pm-drop-recompute"] == 1 / 8
    assert (steps[0]["times_as_fast"], steps[0]["saved_percent"]) == (1.0, 0.0)
