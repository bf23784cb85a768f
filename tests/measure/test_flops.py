"""Operations of a step against sums done by hand; peaks that are known and those that are not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pmexp.measure.flops import _COUNTS, FlopCounter, peak_tflops, precision_of_products
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.checkpointing import checkpoint_layers

BATCH, LENGTH, WIDTH, INNER, CLASSES = 2, 16, 24, 40, 2


def counted(loss: Callable[[], Tensor]) -> FlopCounter:
    with FlopCounter() as counter:
        loss().backward()
    return counter


def linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


@pytest.mark.parametrize("dropout", [nn.Identity(), nn.Dropout(0.1), PackedDropout(0.1)])
def test_an_mlp_by_hand(dropout: nn.Module) -> None:
    """Forward, gradients of both weights, and of the second layer's input alone: x needs none."""
    mlp = nn.Sequential(nn.Linear(100, 30), dropout, nn.Linear(30, 7))
    first, second = linear(32, 100, 30), linear(32, 30, 7)
    flops = counted(lambda: mlp(torch.randn(32, 100)).sum())
    assert (flops.total, flops.recomputed) == (2 * first + 3 * second, 0)


def bert(**options: Any) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=INNER,
        num_labels=CLASSES, **options,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def by_hand() -> tuple[int, int]:
    """(of the layer, of pooler and classifier), forward alone. The heads' sizes sum to WIDTH."""
    tokens = BATCH * LENGTH
    projections = 4 * linear(tokens, WIDTH, WIDTH) + 2 * linear(tokens, WIDTH, INNER)
    attention = 2 * linear(tokens, WIDTH, LENGTH)  # queries by keys, probabilities by values
    return projections + attention, linear(BATCH, WIDTH, WIDTH) + linear(BATCH, WIDTH, CLASSES)


IDS = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH)


@pytest.mark.parametrize("swap", ["stock", "packed", "recompute"])
def test_bert_by_hand_with_products_inside_functions(swap: str) -> None:
    """Recomputing the dropped probabilities repeats a scaling and no product."""
    model = bert(attn_implementation="eager")
    if swap != "stock":
        replace_dropout(model, PackedDropout, recompute=swap == "recompute")
    flops = counted(lambda: model(IDS).logits.sum())
    assert (flops.total, flops.recomputed) == (3 * sum(by_hand()), 0)


def test_bert_under_fused_attention_by_hand() -> None:
    """Fused attention makes its scores a second time in backward: 5 products where eager has 4."""
    model = bert(attn_implementation="sdpa", attention_probs_dropout_prob=0.0)
    flops = counted(lambda: model(IDS).logits.sum())
    assert flops.total == 3 * sum(by_hand()) + linear(BATCH * LENGTH, WIDTH, LENGTH)


@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
def test_experts_by_hand(experts: str) -> None:
    """Whether one operator multiplies for all of them or each has products of its own."""
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": CLASSES}
    mixture = {"num_local_experts": 4, "num_key_value_heads": 1}
    module = MixtralForCausalLM(MixtralConfig(intermediate_size=INNER, **sizes, **mixture))
    module.set_experts_implementation(experts)
    ids = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    totals = []
    for number in (1, 3):
        module.model.layers[0].mlp.gate.top_k = number
        totals.append(counted(lambda: module(input_ids=ids).logits.sum()).total)
    # Each of the two experts more has three products for a token, forward and twice in backward.
    assert totals[1] - totals[0] == 2 * 3 * 3 * linear(BATCH * LENGTH, WIDTH, INNER)


def test_recurrent_layers_by_hand() -> None:
    """oneDNN runs a whole layer as one operator, which cuDNN does with all of them."""
    lstm = nn.LSTM(WIDTH, INNER, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)
    matrices = sum(weight.numel() for weight in lstm.parameters() if weight.dim() == 2)
    assert counted(lambda: lstm(x)[0].sum()).total == 3 * 2 * BATCH * LENGTH * matrices
    weights = [torch.empty(4 * INNER, n) for n in (WIDTH, INNER)] + [torch.empty(4 * INNER)] * 2
    of_cudnn = _COUNTS[torch.ops.aten._cudnn_rnn](x, weights, 4, None, out_val=None)
    assert of_cudnn == linear(BATCH * LENGTH, WIDTH + INNER, 4 * INNER)
    assert _COUNTS[torch.ops.aten._cudnn_rnn_backward](x, weights, 4, out_val=None) == 2 * of_cudnn


@pytest.mark.parametrize("swap", ["stock", "recompute"])
def test_what_checkpointing_repeats_is_counted_apart(swap: str) -> None:
    model = bert(attn_implementation="eager").train()
    if swap == "recompute":
        replace_dropout(model, PackedDropout, recompute=True)
    checkpoint_layers(model)
    flops = counted(lambda: model(IDS).logits.sum())
    layer, head = by_hand()
    assert flops.total - flops.recomputed == 3 * (layer + head)
    last = linear(BATCH * LENGTH, INNER, WIDTH)  # its output is saved by nobody: checkpoint stops before
    assert flops.recomputed in (layer, layer - last)


def test_a_checkpoint_that_stops_early_leaves_no_module_open() -> None:
    layer = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    x = torch.randn(3, 10, requires_grad=True)
    with FlopCounter() as counter:
        checkpoint(layer, x, use_reentrant=False).sum().backward()
        before = counter.recomputed
        weight = torch.randn(10, 10, requires_grad=True)
        (x.detach() @ weight).sum().backward()
    assert before > 0 and counter.recomputed == before


def test_counting_changes_no_number() -> None:
    results = []
    for watched in (False, True):
        torch.manual_seed(1)
        model = bert(attn_implementation="eager").train()
        replace_dropout(model, PackedDropout, recompute=True)
        if watched:
            with FlopCounter():
                F.cross_entropy(model(IDS).logits, torch.tensor([0, 1])).backward()
        else:
            F.cross_entropy(model(IDS).logits, torch.tensor([0, 1])).backward()
        results.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756.0),
        ("NVIDIA H200", "fp32", 67.0),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156.0),
        ("NVIDIA A100 80GB PCIe", "fp16", 312.0),
        ("Tesla V100-SXM2-32GB", "fp16", 125.0),
        ("NVIDIA L4", "bf16", 121.0),
        ("NVIDIA L40S", "bf16", 362.1),
        ("NVIDIA L40", "bf16", None),
        ("Tesla T4", "fp32", 8.1),
        ("Tesla T4", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_peaks(device: str, precision: str, expected: float | None) -> None:
    figure, source = peak_tflops(device, precision)
    assert figure == expected
    assert ("no peak known for " + device in source) == (expected is None)
    assert expected is None or "NVIDIA" in source


def test_float32_products_that_may_be_rounded_are_measured_against_tf32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert [precision_of_products(p) for p in ("fp32", "bf16")] == ["fp32", "bf16"]
        torch.set_float32_matmul_precision("high")
        assert [precision_of_products(p) for p in ("fp32", "bf16")] == ["tf32", "bf16"]
    finally:
        torch.set_float32_matmul_precision(before)
