"""Low-rank adapters: which layers get one, what trains, and files that peft itself reads."""

import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from pmexp import models
from pmexp.config import FrozenWeights, LoraConfig, ModelKind, RunConfig
from pmexp.config.kinds import KINDS
from pmexp.errors import UserError
from pmexp.measure.precision import precision
from pmexp.models.adapters import write_adapter
from pmexp.packed_dropout import PackedDropout
from pmexp.systems.engines.base import trained_weights
from pmexp.variants.replace import apply_variant
from small_kinds import PAIRS, of_kind

RANK, ALPHA = 2, 6.0
# transformers 5.23 about itself, where peft asks a model
ignores_transformers = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def of_lora(kind: ModelKind, *overrides: str, **options: Any) -> RunConfig:
    run = of_kind(kind, *overrides)
    run.model.lora = LoraConfig(rank=RANK, alpha=ALPHA, **options)
    return run


def adapted(kind: ModelKind = ModelKind.bert, *overrides: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return models.untrained(of_lora(kind, *overrides, **options), classes=3)


def layers_of(module: nn.Module) -> set[str]:
    return {name for name, part in module.named_modules() if hasattr(part, "lora_A")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_layer_of_the_body_gets_an_adapter_and_the_head_trains(kind: ModelKind) -> None:
    plain = models.untrained(of_kind(kind), classes=3)
    module = adapted(kind)
    body = "" if kind is ModelKind.t5 else plain.base_model_prefix
    linear = {
        name
        for name, part in plain.base_model.named_modules(prefix=body)
        if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
    }
    assert layers_of(module) == linear - {"lm_head"}
    head = {name for name, _ in plain.named_parameters() if not name.startswith(body)}
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "lora_" not in name} == head
    assert bool(head) == (kind not in PAIRS)  # the output embeddings of those are the input's, and frozen
    assert {part.scaling["default"] for part in module.modules() if hasattr(part, "lora_A")} == {ALPHA / RANK}
    counts = precision(module, "fp32")
    assert counts["parameters_trained"] == sum(module.get_parameter(name).numel() for name in trained)


def test_the_head_of_a_language_model_stays_as_it_is() -> None:
    module = adapted(ModelKind.bert, "dataset.objective=masked_lm", "dataset.metrics=[perplexity]")
    assert all("lora_" in name for name, parameter in module.named_parameters() if parameter.requires_grad)
    assert not any(name.startswith("cls") for name in layers_of(module))


def test_targets_are_ends_of_names() -> None:
    module = adapted(targets=["query", "output.dense"])
    assert {name.split("layer.0.")[1] for name in layers_of(module)} == {
        "attention.self.query", "attention.output.dense", "output.dense",
    }  # fmt: skip


@pytest.mark.parametrize("target", ["qury", "uery", "LayerNorm", "classifier"])
def test_a_target_without_a_layer_lists_those_that_there_are(target: str) -> None:
    with pytest.raises(UserError) as error:
        adapted(targets=["key", target])
    assert str(error.value) == (
        f"model.lora.targets: {target!r} is no linear layer of BertForSequenceClassification's body; there are "
        "dense, key, query, value"
    )


def test_a_missing_peft_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"^model\.lora needs peft, which is not installed; pip install"):
        adapted()


def test_the_dropout_in_front_of_each_adapter_is_the_variants() -> None:
    run = of_lora(ModelKind.bert, "variant=pm-drop", dropout=0.25)
    module = models.untrained(run, classes=3)
    report = apply_variant(module, run.variant, {"input_ids": torch.ones(1, 5, dtype=torch.int64)})
    inside = [name for name in report.modules if name.endswith("lora_dropout.default")]
    assert {name.removesuffix(".lora_dropout.default") for name in inside} == layers_of(module)
    packed = [module.get_submodule(name) for name in inside]
    assert {(type(part), part.p) for part in packed} == {(PackedDropout, 0.25)}
    assert report.settled and not report.left
    by_variant = adapted(ModelKind.bert, "variant.p=0.5", dropout=0.25)
    assert {part.p for part in by_variant.modules() if isinstance(part, nn.Dropout)} == {0.5}


def test_adapters_without_dropout_are_trained_as_they_are() -> None:
    """A Llama has no other module of dropout, and peft makes none for a rate of 0: stock replaces nothing."""
    run = of_lora(ModelKind.llama, "variant=baseline", "variant.p=0.0", "model.attention=sdpa")
    module = models.untrained(run, classes=3)
    report = apply_variant(module, run.variant, {"input_ids": torch.ones(1, 5, dtype=torch.int64)})
    assert report.settled and report.left == {"": "left as it is by variant.p=0"} and not report.modules


def test_frozen_weights_in_bf16_are_in_the_record() -> None:
    module = adapted(ModelKind.gptj, "system=bf16", frozen_weights=FrozenWeights.bf16)
    kinds = {parameter.requires_grad: parameter.dtype for parameter in module.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert precision(module, "bf16 autocast")["precision"] == "bf16 and fp32 weights, bf16 autocast system"
    with torch.autocast("cpu", torch.bfloat16):
        module(input_ids=torch.ones(1, 5, dtype=torch.int64)).logits.float().sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in module.parameters())


@ignores_transformers
@pytest.mark.parametrize("kind", [ModelKind.bert, ModelKind.gpt2])  # the latter's layers are transposed
def test_peft_reads_the_file_back_bit_for_bit(kind: ModelKind, tmp_path: Path) -> None:
    module = adapted(kind).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    write_adapter(module, trained_weights(module), tmp_path / "adapter")
    torch.manual_seed(0)  # draws the frozen weights again
    read = peft.PeftModel.from_pretrained(models.untrained(of_kind(kind), classes=3), tmp_path / "adapter")
    ids = torch.arange(5, 17).view(2, 6)
    if kind is ModelKind.gpt2:
        module.config.pad_token_id = read.config.pad_token_id = 0
    with torch.no_grad():
        assert torch.equal(read.eval()(input_ids=ids).logits, module(input_ids=ids).logits)
    assert not any(parameter.requires_grad for parameter in read.parameters())
