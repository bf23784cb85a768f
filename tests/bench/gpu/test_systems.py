"""The stage `systems` on the CPU at tiny sizes: every figure beside a comparison that can fail."""

import io
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from pmexp.bench.gpu import attention_kernels, device_time, offloading, tempo_steps
from pmexp.bench.gpu.attention_calls import AttentionCall, calls
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.bert import AUTOCAST, HALF, bert
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.lora import lora
from pmexp.bench.gpu.stages.systems import measure
from pmexp.bench.gpu.turns import in_turn
from pmexp.bench.gpu.ways import Way, Ways, distance
from pmexp.systems import offload, sdpa_kernels
from pmexp.systems.tempo import gelu

pytestmark = [
    # transformers 5.23 about itself, where peft asks a model
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:CUDA is not available, disabling CUDA profiling:UserWarning"),
]
CPU = torch.device("cpu")
BF16, PADDED = (
    "Longformer at 32 tokens, torch.bfloat16, dropout 0",
    "BERT with padding, torch.bfloat16, dropout 0.1",
)


class TinyBench(Bench):
    """A tiny bench on the CPU that keeps all lines that a stage writes."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.file = io.StringIO()
        super().__init__(CPU, True, Budget(seconds), self.file)

    def lines(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.file.getvalue().splitlines()]
        return [line for line in lines if line["kind"] == kind]

    def texts(self, kind: str) -> list[str]:
        return [line["text"] for line in self.lines(kind)]

    def broken(self) -> list[str]:
        return [line["what"] for line in self.lines("check") if not line["held"]]


@pytest.fixture(scope="module")
def whole() -> TinyBench:
    bench = TinyBench()
    measure(bench)
    return bench


def tables(bench: TinyBench) -> dict[str, list[dict[str, Any]]]:
    cells = defaultdict(list)
    for line in bench.lines("row"):
        cells[line["table"]].append(line["cells"])
    return cells


def test_every_piece_runs_and_every_check_holds(whole: TinyBench) -> None:
    assert whole.texts("failed") == [] and whole.texts("left_out") == []
    assert whole.broken() == [] and len(whole.lines("check")) > 30
    rows = tables(whole)
    assert [(row["precision"], row["step"]) for row in rows["tempo"]] == [
        (precision, step)
        for precision in ("bf16 autocast", "bf16 weights")
        for step in ("stock", "tempo", "pm-drop + tempo", "pm-drop", "pm-drop + recompute")
    ]
    assert {row["module"] for row in rows["tempo_modules"]} >= {"stock", "tempo"}
    steps = ["stock", "offload", "pm-drop + offload", "pm-drop", "torch's save_on_cpu"]
    assert [row["step"] for row in rows["offload"]] == steps
    assert [row["attention"] for row in rows["longformer_attention"]] == ["eager", "blocks"]
    assert len(rows["attention_device_kernels"]) == len(calls(CPU, True))
    for table in ("tempo", "offload", "lora", "longformer_attention"):
        assert all(row["ratio"] > 0 and row["ms"] > 0 and row["rounds"] == 2 for row in rows[table])
        assert all(row["low"] is row["high"] is None for row in rows[table])  # two rounds have no interval


def test_what_is_saved_for_backward(whole: TinyBench) -> None:
    rows = tables(whole)
    saved = {row["step"]: row["saved_MiB"] for row in rows["tempo"] if row["precision"] == "bf16 weights"}
    for less, more in (
        ("pm-drop + tempo", "tempo"),
        ("pm-drop + tempo", "pm-drop + recompute"),
        ("pm-drop", "stock"),
    ):
        assert saved[less] < saved[more]
    masks = {row["step"]: row["masks_MiB"] for row in rows["lora"]}
    # Two layers of seven adapters; a token is 32 numbers, 64 in down_proj. No gradient reaches the embeddings,
    # so that the first three adapters save no mask.
    elements = 4 * 16 * (2 * (6 * 32 + 64) - 3 * 32)
    assert masks["dropout 0"] == 0
    assert masks["dropout 0.1 by pm-drop"] == elements / 8 / 2**20
    assert masks["dropout 0.1"] > 7 * masks["dropout 0.1 by pm-drop"]


def test_kernels_of_the_cpu(whole: TinyBench) -> None:
    """On the CPU the flash kernel takes masks but no dropout."""
    rows = tables(whole)
    assert len(rows["attention_kernels"]) == len(calls(CPU, True))
    assert {(row["dropout"], row["kernel"]) for row in rows["attention_kernels"]} == {
        (0.1, "math kernel"), (0.0, "flash kernel"),
    }  # fmt: skip
    others = rows["other_attention_kernels"]
    assert {row["dtype"] for row in others} == {"bfloat16"}
    assert {row["kernel"] for row in others if row["dropout"] == 0} == {"flash kernel", "math kernel"}


# ---- each comparison fails where something is wrong


def compared(precision: str) -> list[str]:
    """Returns the names of the checks of Tempo's steps and of its GELU that fail."""
    bench = TinyBench()
    ways = Ways(*bert(bench, precision, 2), tempo_steps._WAYS)
    for expected, other in (("stock", "tempo"), ("pm-drop", "pm-drop + tempo")):
        tempo_steps._check_same(bench, ways, precision, expected, other)
    stock, x = nn.GELU(), torch.randn(64, 8, requires_grad=True)
    numbers = [tempo_steps._both(module, x, x.detach()) for module in (stock, gelu.InplaceGELU(stock))]
    tempo_steps._check_module(bench, "GELU", *numbers)
    return bench.broken()


@pytest.mark.parametrize("precision", [AUTOCAST, HALF])
def test_a_wrong_gradient_of_tempo_is_seen(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared(precision) == []
    right = gelu.gelu_backward
    monkeypatch.setattr(gelu, "gelu_backward", lambda *args: right(*args) * 1.2)
    broken = compared(precision)
    assert len(broken) == 3 and all("gradient" in text for text in broken)


def test_another_output_of_tempo_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gelu, "inplace_gelu", lambda x, function, form: function(x) * (1 + 2**-7))
    broken = compared(AUTOCAST)
    assert len([text for text in broken if "bit for bit" in text]) == 3


def test_a_value_that_offload_loses_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(*args: Any, **kwargs: Any) -> Any:
        return torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensor, lambda tensor: tensor * 1.001 if tensor.is_floating_point() else tensor
        )

    monkeypatch.setattr(offload.Offload, "forward", lossy)
    bench = TinyBench()
    offloading.offloading(bench, Budget(1000))
    assert [text.split(" has ")[0] for text in bench.broken()] == ["offload", "pm-drop + offload"]


def test_a_record_that_names_another_kernel_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdpa_kernels, "_kernel", lambda *args, **kwargs: "cuDNN kernel on cpu")
    bench = TinyBench()
    attention_kernels._measure_chosen(bench, Budget(1000), calls(CPU, True)[BF16]())
    assert len(bench.broken()) == 1 and "the run's record names the kernel" in bench.broken()[0]


@pytest.mark.parametrize("number", [0, 1, 2, 3], ids=["output", "query", "key", "value"])
def test_a_kernel_with_other_numbers_is_seen(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[[AttentionCall], list[Tensor]] = AttentionCall.both

    def both(call: AttentionCall) -> list[Tensor]:
        outputs = right(call)
        if call.query.dtype is torch.bfloat16:
            outputs[number] = outputs[number] * 1.05
        return outputs

    monkeypatch.setattr(AttentionCall, "both", both)
    bench = TinyBench()
    attention_kernels._check_numbers(bench, calls(CPU, True)[BF16](), [SDPBackend.FLASH_ATTENTION])
    assert len(bench.broken()) == 1


def test_not_a_number_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_kernels, "distance", lambda actual, expected: math.nan)
    bench = TinyBench()
    attention_kernels._check_numbers(bench, calls(CPU, True)[BF16](), [SDPBackend.MATH])
    assert len(bench.broken()) == 1


def test_a_kernel_that_drops_nothing_is_seen() -> None:
    call = calls(CPU, True)[PADDED]()
    bench = TinyBench()
    attention_kernels._check_dropout(bench, call, [SDPBackend.MATH])
    assert bench.broken() == []
    attention_kernels._check_dropout(bench, call.without_dropout(), [SDPBackend.MATH])
    assert len(bench.broken()) == 1


# ---- what fails, is not there or takes too long costs no other


def test_a_way_that_fails_is_named_and_the_others_are_measured() -> None:
    bench, done = TinyBench(), []

    def fails() -> None:
        raise RuntimeError("no such kernel")

    turns = in_turn(
        bench, {"a": lambda: done.append("a"), "b": fails, "c": lambda: done.append("c")}, Budget(9), 9
    )
    assert list(turns) == ["a", "c"] and turns["a"].rounds == 2
    assert bench.texts("failed") == ["b: RuntimeError: no such kernel"]
    assert done == ["a", "a", "c", "c", "a", "c", "c", "a"]


def test_what_there_is_no_time_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(device_time.time, "perf_counter", lambda: now)

    def slow() -> None:
        nonlocal now
        now += 2

    bench = TinyBench()
    bench.tiny = False
    turns = in_turn(bench, dict.fromkeys("abc", slow), Budget(10, lambda: now), 9)
    assert {name: turn.rounds for name, turn in turns.items()} == {"a": 6, "b": 6}  # an interval needs six
    assert bench.texts("left_out") == ["c: no time was left for its first calls"]


def test_nothing_is_measured_of_lora_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    bench = TinyBench()
    lora(bench, Budget(1000))
    assert [text.split(" (")[0] for text in bench.texts("left_out")] == ["LoRA: peft cannot be imported"]
    assert bench.lines("row") == []


# ---- its own tools


def test_ways_share_weights_and_leave_no_gradient() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1).requires_grad_(False))
    x = torch.randn(8, 4)
    ways = Ways(
        module,
        lambda tree: tree(x).square().mean(),
        {"a": Way(), "b": Way(lambda tree: tree.append(nn.Tanh()))},
    )
    assert ways["b"][2] and ways["a"][0].weight is ways["b"][0].weight
    before, other = ways.gradients("a"), ways.gradients("b")
    assert len(before[1]) == 2 and distance(before[1], before[1]) == 0 < distance(other[1], before[1])
    ways.step("a")
    assert ways.gradients("b")[0] < other[0] and module[0].weight.grad is None
