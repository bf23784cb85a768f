"""Bytes of tensors over a training step: against torch's profiler of all that was allocated, without a trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from torch.profiler._utils import traverse_dfs

from pmexp.config import MeasureConfig, Part, SystemConfig, TrainConfig, VariantConfig
from pmexp.measure.instruments import Instruments
from pmexp.measure.memory_by_category import bytes_of
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.tensor_bytes import TensorMemory
from pmexp.models.examples import TensorExamples
from pmexp.systems import compile
from pmexp.systems.system import System
from pmexp.training.loop import Training
from pmexp.variants.replace import apply_variant
from small_runs import TINY_VIT, Runs

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "num_labels": 3,
    "attn_implementation": "eager",
}  # fmt: skip
TEXT = SIZES | {"vocab_size": 99}


def bert() -> nn.Module:
    return hf.BertForSequenceClassification(hf.BertConfig(**TEXT))


def vit() -> nn.Module:
    return hf.ViTForImageClassification(hf.ViTConfig(**SIZES, image_size=16, patch_size=4))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 64, "vocab_size": 99, "pad_token_id": 0}
    return hf.GPT2ForSequenceClassification(hf.GPT2Config(**sizes, num_labels=3, attn_implementation="eager"))


def longformer() -> nn.Module:
    sizes = {name: value for name, value in TEXT.items() if name != "attn_implementation"}
    return hf.LongformerForSequenceClassification(hf.LongformerConfig(**sizes, attention_window=[8, 8]))


def distilbert() -> nn.Module:
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "vocab_size": 99, "num_labels": 3}
    return hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**sizes, attn_implementation="eager"))


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    dropout: str = "packed"
    parts: list[Part] = field(default_factory=list)
    accumulate: int = 1


CASES = {
    "vit": Case(vit, "stock"),
    "bert in parts": Case(bert, accumulate=4),
    "gpt2 checkpointed": Case(gpt2, parts=[Part.checkpointing]),
    "longformer in bf16": Case(longformer, parts=[Part.bf16]),
    "distilbert compiled": Case(distilbert, parts=[Part.compile]),
}


def examples(case: Case) -> TensorExamples:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    if case.build is vit:
        return TensorExamples({"pixel_values": torch.randn(24, 3, 16, 16, generator=generator)}, labels)
    ids = torch.randint(3, 99, (24, 16), generator=generator)
    return TensorExamples({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels)


def training(case: Case, split: TensorExamples) -> Training:
    torch.manual_seed(0)
    module, system = case.build(), System(SystemConfig(parts=case.parts))
    system.before_variant(module)
    apply_variant(module, VariantConfig(name="tested", dropout=case.dropout))
    system.prepare(module)
    config = TrainConfig(epochs=1, batch_size=8, lr=1e-3, accumulate=case.accumulate, log_every=1)
    return Training(module, split, split, config, ["accuracy"], 5, system)


@contextmanager
def allocated() -> Iterator[list[int]]:
    """The highest sum of what torch's CPU allocator gave and took back."""
    highest: list[int] = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        yield highest
    profiler: Any = recorded.profiler
    roots = profiler.kineto_results.experimental_event_tree()
    events = [event for event in traverse_dfs(roots) if event.tag == _EventType.Allocation]
    live: dict[int, int] = {}  # bytes, by address: what an earlier profile left out of its account is no part
    peak = 0
    for event in sorted(events, key=lambda event: event.start_time_ns):
        live.pop(event.extra_fields.ptr, None)
        if event.extra_fields.alloc_size > 0:
            live[event.extra_fields.ptr] = event.extra_fields.alloc_size
        peak = max(peak, sum(live.values()))
    highest.append(peak)


# The warning is dynamo's.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_the_peak_is_that_of_all_allocations_since_before_the_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring changes nothing: losses and weights are those of the same step unmeasured, bit for bit."""
    monkeypatch.setattr(compile, "BACKEND", "aot_eager")
    torch.compiler.reset()
    case, split = CASES[name], examples(CASES[name])
    with allocated() as since_the_beginning:
        alone = training(case, split)
        losses = [metrics["train/loss"] for _, (_, metrics) in zip(range(2), alone.steps(), strict=False)]
    torch.compiler.reset()
    recorded = training(case, split)
    config = MeasureConfig(flops=False, energy=False)
    recorded.instruments = Instruments(
        config, recorded.module, CPU, "fp32", None, TensorMemory(CPU), recorded.held
    )
    steps = [metrics for _, (_, metrics) in zip(range(2), recorded.steps(), strict=False)]
    assert steps[1]["memory/peak_tensor_bytes"] == pytest.approx(since_the_beginning[0], rel=0.01)
    assert (
        bytes_of(recorded.held())
        < steps[1]["memory/mean_tensor_bytes"]
        < steps[1]["memory/peak_tensor_bytes"]
    )
    assert "memory/peak_tensor_bytes" not in steps[0]
    assert [metrics["train/loss"] for metrics in steps] == losses
    assert all(map(torch.equal, alone.module.parameters(), recorded.module.parameters()))


def test_peak_and_mean_by_hand(capfd: pytest.CaptureFixture[str]) -> None:
    held = torch.empty(25)
    with TensorMemory(CPU).block([held, held[1:]]) as taken:
        kept = torch.empty(50)
        torch.empty(100)
        torch.empty(10, dtype=torch.uint8)
    levels = [100 + each for each in (200, 600, 200, 210, 200)]
    assert (taken.before, taken.peak, taken.mean) == (100, 700, sum(levels) / 5)
    assert kept.numel() == 50 and capfd.readouterr().err == ""


@pytest.mark.parametrize("stopped_at", [1, 4])
def test_a_resumed_run_records_the_same_bytes(
    stopped_at: int, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the step that is measured, or behind it."""
    from pmexp.training import run as experiment

    whole = Runs(tmp_path / "whole", runs.capture)
    arguments = [*TINY_VIT, "tracking=off", "train.log_every=1", "variant=pm-drop", "train.max_steps=8"]
    assert whole.train(*arguments)[0] == 0
    steps = Training.steps

    def stopping(self: Training) -> Iterator[Any]:
        for number, metrics in steps(self):
            stop.extend(["SIGTERM"] * (number == stopped_at))
            yield number, metrics

    stop: list[str] = []
    train = experiment._train

    def watched(*given: Any) -> None:
        nonlocal stop
        stop = given[-1]
        train(*given)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "_train", watched)
        patch.setattr(Training, "steps", stopping)
        assert runs.train(*arguments)[0] == 130
    assert runs.train(*arguments)[0] == 0
    for metric in ("memory/peak_tensor_bytes", "memory/mean_tensor_bytes", "train/loss"):
        assert runs.curve("pm-drop-s0", metric) == whole.curve("pm-drop-s0", metric), metric
    assert len(runs.curve("pm-drop-s0", "memory/peak_tensor_bytes")) == 1


def test_a_run_records_what_it_takes_and_judges_memory_by_it(runs: Runs) -> None:
    summaries = {}
    for variant in ("baseline", "pm-drop"):
        assert runs.train(*TINY_VIT, "tracking=off", "train.max_steps=8", f"variant={variant}")[0] == 0
        summaries[variant] = runs.summaries()[f"{variant}-s0"]
    stock, packed = (summaries[variant]["metrics"] for variant in ("baseline", "pm-drop"))
    assert packed["memory/peak_tensor_bytes"] < stock["memory/peak_tensor_bytes"] < stock["memory/peak_bytes"]
    saved = [stock[name] - packed[name] for name in ("memory/saved_bytes", "memory/peak_tensor_bytes")]
    assert saved[1] == pytest.approx(saved[0], rel=0.1)  # for the method's reason
    model = packed["memory/parameters_bytes"]
    assert model < packed["inference/peak_tensor_bytes"] < packed["memory/peak_tensor_bytes"]
    assert (
        packed["inference/ms_per_sample"] > 0 and 0 < packed["speed/data_wait_ms"] < packed["speed/step_ms"]
    )
    assert not [name for name in packed if name.startswith("gpu/")]
    said = summaries["pm-drop"]["environment"]
    assert said["tensor_bytes"] == "allocations of torch on the CPU in one step"
    assert said["utilization_source"] == said["pcie_source"] == "not measured: no NVML on cpu"


def test_cudas_counter_is_set_back_and_the_runs_peak_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator is stood in for, since a GPU cannot be had here."""
    peak = 900
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)

    def reset(device: torch.device) -> None:
        nonlocal peak
        peak = 300

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    memory = TensorMemory(torch.device("cuda"))
    memory.process = PeakMemory(torch.device("cuda"))
    peak = 900
    with memory.block([]) as taken:
        peak = 700
    assert (taken.before, taken.peak, taken.mean) == (300, 700, 300.0)
    assert memory.process.bytes() == 900
    peak = 1000
    assert memory.process.bytes() == 1000
