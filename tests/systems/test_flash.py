"""The flash part: what it puts in, what it says ran, and what the report of the variant says then."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2Model,
    GPTJConfig,
    GPTJModel,
    LongformerConfig,
    LongformerModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)

from pmexp.config import VariantConfig, Where
from pmexp.errors import UserError
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems import flash
from pmexp.systems.flash import Flash
from pmexp.variants.replace import apply_variant
from small_runs import TINY_BERT, Runs

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "hidden_dropout_prob": 0.0, "attn_implementation": "eager",
}  # fmt: skip


def bert(p: float = 0.0) -> Any:
    config = BertConfig(vocab_size=50, attention_probs_dropout_prob=p, **SIZES)
    return BertForSequenceClassification(config)


def of_kind(kind: str) -> Any:
    torch.manual_seed(0)
    match kind:
        case "bert":
            return bert()
        case "roberta":
            return RobertaModel(RobertaConfig(vocab_size=50, attention_probs_dropout_prob=0.0, **SIZES))
        case "gpt2":
            rates = {
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
                "bos_token_id": 1,
                "eos_token_id": 1,
            }
            sizes = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4}
            return GPT2Model(GPT2Config(attn_implementation="eager", **sizes, **rates))
        case _:
            return ViTModel(ViTConfig(image_size=8, patch_size=4, attention_probs_dropout_prob=0.0, **SIZES))


def inputs(kind: str) -> dict[str, torch.Tensor]:
    if kind == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8).double()}
    mask = (torch.arange(20) < torch.tensor([[20], [12]])).long()
    return {"input_ids": torch.randint(3, 50, (2, 20)), "attention_mask": mask}


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "vit"])
def test_outputs_are_those_of_eager(kind: str) -> None:
    eager = of_kind(kind).double().train()
    ours = copy.deepcopy(eager)
    Flash().before_variant(ours, CPU, half=False)
    given = inputs(kind)
    # Eager takes its softmax in fp32 in BERT-like models and ViT: 2^-24 of values of order 1, a few layers.
    torch.testing.assert_close(ours(**given)[0], eager(**given)[0], rtol=0, atol=1e-6)
    assert Flash().record(ours) == {"attention": "flash: sdpa; training: flash kernel on cpu"}
    assert eager.config._attn_implementation == "eager"


def test_the_record_says_which_kernels_ran() -> None:
    model = bert(p=0.1).train()
    Flash().before_variant(model, CPU, half=False)
    assert (
        Flash().record(model)["attention"]
        == "flash: sdpa; its kernel was not seen (no forward, or a compiled one)"
    )
    ids = torch.randint(3, 50, (2, 20))
    for training in (True, False):
        model.train(training)(ids)
    assert Flash().record(model)["attention"] == (
        "flash: sdpa; training: math kernel on cpu under attention dropout (saves the probabilities); "
        "evaluation: flash kernel on cpu"
    )


def longformer() -> Any:
    sizes = {k: v for k, v in SIZES.items() if k != "attn_implementation"}
    config = LongformerConfig(vocab_size=50, attention_window=8, max_position_embeddings=40, **sizes)
    return LongformerModel(config).train()


@pytest.mark.parametrize("make", [partial(bert, p=0.1), longformer], ids=["bert", "longformer"])
def test_pm_drop_reaches_attention_where_torch_takes_its_math_kernel(make: Any) -> None:
    model = make()
    Flash().before_variant(model, CPU, half=False)
    report = replace_dropout(model, PackedDropout)
    model.train()(torch.ones(1, 16, dtype=torch.int64))
    assert list(report.attention.values()) == ["math kernel on cpu"] * 2
    assert report.functions == [] and report.left == {}


def test_pm_drop_reports_the_attention_dropout_it_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a fused kernel, which attention with dropout gets on CUDA alone: here its choice is a stand-in."""
    model, ids = bert(p=0.1), torch.ones(1, 16, dtype=torch.int64)
    Flash().before_variant(model, CPU, half=False)
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_, **__: SDPBackend.FLASH_ATTENTION.value)
    attention_only = VariantConfig(name="attention-only", dropout="packed", where=Where.attention)
    with pytest.raises(UserError, match=r"found nothing to replace in .*inside the flash attention kernel"):
        apply_variant(model, attention_only, {"input_ids": ids})


def test_longformer_in_eager_stays_within_reach_of_pm_drop() -> None:
    report = replace_dropout(longformer(), PackedDropout)
    assert len(report.functions) == 2 and report.left == {}


def test_a_model_with_eager_attention_only_is_one_clear_error() -> None:
    gptj = GPTJModel(
        GPTJConfig(
            vocab_size=50, n_embd=32, n_layer=1, n_head=2, rotary_dim=4, bos_token_id=1, eos_token_id=1
        )
    )
    with pytest.raises(
        UserError, match=r"^system.parts: flash has no attention for GPTJModel.*leave flash out$"
    ):
        Flash().before_variant(gptj, CPU, half=False)


@pytest.mark.parametrize(
    ("device", "half", "there", "chosen"),
    [
        ("cuda", True, True, "flash_attention_2"),
        ("cuda", False, True, "sdpa_fused"),
        ("cuda", True, False, "sdpa_fused"),
        ("cpu", True, True, "sdpa_fused"),
    ],
)
def test_the_package_is_taken_on_cuda_in_half_precision(
    device: str, half: bool, there: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package and the device cannot be had here: only the choice is tested."""
    model, asked = bert(), []
    monkeypatch.setattr(flash, "is_flash_attn_2_available", lambda: there)
    monkeypatch.setattr(model, "set_attn_implementation", asked.append)
    Flash().before_variant(model, torch.device(device), half)
    assert asked == [chosen]


@pytest.mark.slow
def test_a_run_under_flash_and_checkpointing_is_the_run_under_sdpa(runs: Runs, few_news: str) -> None:
    """At rate 0 attention is the same function; the record says flash and which kernel it was."""
    common = [*TINY_BERT, few_news, "train.max_steps=2", "variant.p=0.0", "tracking=off", "seed=0"]
    assert runs.train(*common, "model.attention=sdpa", "variant=baseline")[0] == 0
    code, _, err = runs.train(*common, "system.parts=[flash,checkpointing]", "variant=pm-drop")
    assert code == 0, err
    losses = [dict(runs.curve(f"{name}-s0", "train/loss")) for name in ("baseline", "pm-drop")]
    assert losses[0] == losses[1]
    summary = runs.summaries()["pm-drop-s0"]
    assert summary["environment"]["attention"] == (
        "flash: sdpa; training: flash kernel on cpu; evaluation: flash kernel on cpu"
    )
    (seen,) = set(summary["replacement"]["attention"].values())
    assert "no call that drops was seen" in seen
