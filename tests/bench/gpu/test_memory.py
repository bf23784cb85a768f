"""BERT-Large's stage, tiny and on the CPU: the simulated step is the measured one, and what is written."""

import io
import json
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmexp.bench.gpu import leftovers, replayed_steps
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.device_time import wall_seconds
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
    simulated = simulated_step(TINY, attention, "bf16", variant, "cpu")
    real = {phase: peak.total for phase, peak in counter.peaks.items()}
    assert {phase: simulated.phases[phase] for phase in real} == pytest.approx(real, rel=0.01)
    assert simulated.peak_bytes == max(simulated.phases.values())


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
    measured = measured_step(workload, BASELINE)
    assert tuple(measured.phases) == PHASES
    assert measured.peak_bytes == max(measured.phases.values()) > 0
    assert (measured.reserved_bytes, measured.requested_bytes) == (None, None)


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
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    failed = [line["text"] for line in lines if line["kind"] in ("failed", "left_out")]
    assert failed == [
        "tiny, eager, bf16, CUDA graphs: need CUDA",
        "simulated peak, seed-only: RuntimeError: an internal of torch is elsewhere",
    ]
    assert [line["held"] for line in lines if line["kind"] == "check"] == [True, True]
    rows = [line["cells"] for line in lines if line.get("table") == "simulated"]
    assert [row["configuration"] for row in rows] == ["stock", "checkpointing", "sdpa"]
    steps = [line["cells"] for line in lines if line.get("table") == "steps"]
    assert [(row["attention"], row["variant"]) for row in steps] == [("eager", name) for name in VARIANTS] + [
        ("sdpa", name) for name in VARIANTS if name != "pm-drop-recompute"
    ]
    masks = {row["variant"]: row["mask_bytes_an_element"] for row in steps}
    assert masks["pm-drop"] == masks["pm-drop-recompute"] == 1 / 8
    assert (steps[0]["times_as_fast"], steps[0]["saved_percent"]) == (1.0, 0.0)
    assert not any(row["graph"] for row in steps) and all(row["low"] is None for row in steps)
    assert all(0 < row["host_ms"] <= row["wall_ms"] for row in steps)


# ---- what others leave behind


class Counting(Bench):
    """A bench whose device holds as many bytes as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lies, self.file = 2**20, io.StringIO()
        super().__init__(torch.device("cuda"), True, Budget(60), self.file)
        monkeypatch.setattr(leftovers, "allocated", lambda device: self.lies)
        monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def checks(self) -> list[tuple[str, bool, str]]:
        lines = map(json.loads, self.file.getvalue().splitlines())
        return [(line["what"], line["held"], line["detail"]) for line in lines]


def test_what_a_piece_leaves_on_the_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Counting(monkeypatch)
    left = leftovers.Leftovers(bench)
    bench.lies += 2**23
    left.check("offload")
    bench.lies += 2**30
    left.check("LoRA")
    assert bench.checks() == [
        ("nothing is left on the device before offload", True, "9 MiB and not 1"),
        ("nothing is left on the device before LoRA", False, "1,033 MiB and not 1"),
    ]


def test_contenders_that_begin_with_other_bytes_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Counting(monkeypatch)
    leftovers.check_starts(bench, {"a": 2**30, "b": 2**30 + 2**20})
    leftovers.check_starts(bench, {"a": 2**30, "b": 2**31})
    leftovers.check_starts(bench, {"a": 2**30})
    what = "the same bytes are on the device where each begins: a, b"
    assert bench.checks() == [
        (what, True, "a: 1,024 MiB, b: 1,025 MiB"),
        (what, False, "a: 1,024 MiB, b: 2,048 MiB"),
    ]


# ---- steps as CUDA graphs, of which there are none here: a step takes the replay's place


def replayed(monkeypatch: pytest.MonkeyPatch, wrong: str = "") -> list[dict[str, Any]]:
    """Returns the lines of the stage; each replay of the variant `wrong` has the masks of its capture again."""
    alive: list[weakref.ref[Any]] = []

    def captured(workload: Workload, name: str, batch: int) -> Any:
        workload.step(name, batch)
        assert len([ref for ref in alive if ref()]) <= 1  # the baseline's beside it

        def replay() -> torch.Tensor:
            if name == wrong:
                torch.manual_seed(7)
            return workload.step(name, batch)

        alive.append(weakref.ref(replay))
        return replay

    monkeypatch.setattr(replayed_steps, "captured", captured)
    file = io.StringIO()
    bench = Bench(CPU, True, Budget(600), file)
    bench.device = SimpleNamespace(type="cuda")  # type: ignore[assignment]
    monkeypatch.setattr(replayed_steps, "wall_seconds", lambda step, n, _: wall_seconds(step, n, CPU))
    variants = [BASELINE, "pm-drop", "seed-only"]
    workload = Workload(TINY, "eager", "bf16", CPU, variants, capturable=False)
    replayed_steps.replayed_steps(bench, Budget(600), workload)
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_each_contenders_graph_is_measured_beside_the_baselines_and_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = replayed(monkeypatch)
    assert [line["held"] for line in lines if line["kind"] == "check"] == [True] * 3
    rows = [line["cells"] for line in lines if line["kind"] == "row"]
    named = [(row["variant"], row["rounds"], row["graph"]) for row in rows]
    assert named == [("pm-drop", 2, True), ("seed-only", 2, True), (BASELINE, 4, True)]
    assert rows[-1]["times_as_fast"] == 1.0 and len(lines) == 6


def test_a_graph_that_replays_no_steps_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = replayed(monkeypatch, wrong="pm-drop")
    rows = [line["cells"]["variant"] for line in lines if line["kind"] == "row"]
    assert rows == ["seed-only", BASELINE]
    assert [line["held"] for line in lines if line["kind"] == "check"] == [True, False, True]
    assert [line["cells"] for line in replayed(monkeypatch, wrong=BASELINE) if line["kind"] == "row"] == []
