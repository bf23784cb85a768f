"""The part as a whole: what it changes in real models, what it saves, and training with it."""

import copy

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2Model, T5Config, T5Model

from pmexp.errors import UserError
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, cpu, replace_dropout
from pmexp.systems.checkpointing import checkpoint_layers
from pmexp.systems.tempo import InplaceGELU, InplaceLayerNorm, Tempo, apply_tempo
from small_runs import TINY_VIT, Runs

CORE = cpu.Core(cpu.available_backends()[0]).name
KEEPS_OUTPUT = f"keeps its output; backward in one pass by {CORE}"
BATCH, LENGTH, WIDTH, WIDE, HEADS, LAYERS = 2, 32, 48, 96, 4, 2


def bert(attention: str = "eager") -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDE, "num_attention_heads": HEADS}
    config = BertConfig(**sizes, num_hidden_layers=LAYERS, vocab_size=90, attn_implementation=attention)
    return BertForSequenceClassification(config)


def step(model: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor], SavedForBackward]:
    torch.manual_seed(1)
    with SavedForBackward(model) as ledger:
        logits = model(input_ids=torch.arange(BATCH * LENGTH).reshape(BATCH, LENGTH)).logits
    return (
        logits,
        list(torch.autograd.grad(logits.square().sum(), list(model.parameters()), allow_unused=True)),
        ledger,
    )


def test_bert_saves_what_the_formula_says_less() -> None:
    """Each layer: GELU's input for a bit, the inputs and means of two norms, the dropped probabilities."""
    stock = bert().train()
    replace_dropout(stock, PackedDropout)
    model = copy.deepcopy(stock)
    report = apply_tempo(model)
    (expected, gradients, before), (logits, actual, after) = step(stock), step(model)
    assert torch.equal(logits, expected)
    for a, b in zip(actual, gradients, strict=True):  # that of a key's bias is 0 but for rounding
        assert (a - b).norm() <= 1e-5 * max(b.norm(), torch.tensor(0.1))
    tokens = BATCH * LENGTH
    gelu = tokens * WIDE * 4 - tokens * WIDE // 8
    norms = 2 * tokens * (WIDTH + 1) * 4
    attention = BATCH * HEADS * LENGTH * LENGTH * 4
    embeddings = tokens * 4  # its output is nobody's but its own: the mean alone is gained
    assert before.total_bytes - after.total_bytes == LAYERS * (gelu + norms + attention) + embeddings
    assert after.mask_bytes == before.mask_bytes and after.recomputed_products == LAYERS
    assert len(report.changed) == 1 + 4 * LAYERS and report.left == {}
    assert list(model.state_dict()) == list(stock.state_dict())


def test_checkpointed_layers_with_rebuilt_operands_are_counted_and_run_again() -> None:
    """The embeddings' dropout is fed by a norm that keeps its output: only the ledger would hold that for long."""
    results = []
    for checkpointed in (False, True):
        model = bert().train()
        replace_dropout(model, PackedDropout, recompute=True)
        apply_tempo(model)
        if checkpointed:
            checkpoint_layers(model)
        results.append(step(model)[1])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_eval_is_stock(attention: str) -> None:
    stock = bert(attention)
    model = copy.deepcopy(stock)
    report = apply_tempo(model)
    assert list(report.left) == ["attention dropout"]  # stock dropout, or the kernel's own
    (expected, gradients, before), (logits, actual, after) = step(stock.eval()), step(model.eval())
    assert torch.equal(logits, expected) and before.total_bytes == after.total_bytes
    assert all(a is b or torch.equal(a, b) for a, b in zip(actual, gradients, strict=True))


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_the_record_says_what_each_norm_kept(autocast: bool) -> None:
    """Without dropout the ledger shows it: each norm's input and means go in fp32, nothing under autocast."""
    stock = bert().train()
    for module in stock.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model = copy.deepcopy(stock)
    Tempo().prepare(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        saved = [step(each)[2].total_bytes for each in (stock, model)]
    tokens, size = BATCH * LENGTH, 2 if autocast else 4
    gelu = tokens * WIDE * size - tokens * WIDE // 8
    norms = 0 if autocast else (2 * LAYERS + 1) * tokens * (WIDTH + 1) * 4
    assert saved[0] - saved[1] == LAYERS * gelu + norms
    lines = {line for name, line in Tempo().record(model).items() if "LayerNorm" in name}
    kept = "keeps its input, since autocast casts its float32 output" if autocast else KEEPS_OUTPUT
    assert lines == {f"in-place LayerNorm: {kept}"}


@pytest.mark.parametrize("fused", [False, True])
def test_the_record_says_of_attention_what_ran(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each attention and none for the eager one that sdpa leaves uncalled; on CUDA a fused kernel may run."""
    model = bert("sdpa").train()
    replace_dropout(model, PackedDropout, example={"input_ids": torch.ones(1, 4, dtype=torch.int64)})
    part = Tempo()
    part.prepare(model)
    if fused:
        monkeypatch.setattr(
            "pmexp.packed_dropout.attention.kernel_of", lambda *_, **__: "flash kernel on cuda"
        )
    step(model)
    ran = "left: attention ran in the flash kernel on cuda, which keeps no probabilities"
    expected = ran if fused else "dropped probabilities recomputed from bits"
    lines = {name: line for name, line in part.record(model).items() if ".self." in name}
    places = [f"tempo.bert.encoder.layer.{layer}.attention.self.routed_attention" for layer in range(LAYERS)]
    assert lines == dict.fromkeys(places, expected)


def test_a_dropout_that_only_tells_attention_its_rate_is_not_recomputed() -> None:
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, attn_implementation="eager")
    model = GPT2Model(config).train()
    replace_dropout(model, PackedDropout, example={"input_ids": torch.ones(1, 4, dtype=torch.int64)})
    lines = apply_tempo(model).changed
    assert [name for name, line in lines.items() if "recomputed" in line] == ["h.0.attn.routed_dropout"]


def test_what_is_left_has_a_reason() -> None:
    model = T5Model(
        T5Config(
            d_model=16,
            d_kv=4,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            vocab_size=20,
            feed_forward_proj="gated-gelu",
        )
    )
    report = apply_tempo(model)
    assert set(report.changed.values()) == {"in-place GELU (tanh)"}
    assert "T5LayerNorm is no plain nn.LayerNorm" in report.left.values()
    hooked = nn.Sequential(nn.GELU(), nn.LayerNorm(4))
    hooked[0].register_forward_hook(lambda *_: None)
    report = apply_tempo(hooked)
    assert "hooks of its own" in report.left["0"] and isinstance(hooked[1], InplaceLayerNorm)
    with pytest.raises(UserError, match=r"system\.parts: tempo finds nothing to change in Linear"):
        Tempo().prepare(nn.Linear(2, 2))


def test_a_shared_module_stays_shared_and_a_second_time_changes_nothing() -> None:
    gelu = nn.GELU()
    model = nn.Sequential(gelu, nn.Linear(2, 2), gelu)
    apply_tempo(model)
    assert isinstance(model[0], InplaceGELU) and model[0] is model[2] and model[0].stock is gelu
    assert apply_tempo(model).changed == {}


def test_training_with_it_loses_as_plain_does(runs: Runs) -> None:
    """The first loss is equal, and the later ones differ by what gradients off by 1e-7 to 1e-4 make of them."""
    arguments = [*TINY_VIT, "train.max_steps=8", "train.log_every=1", "tracking=off", "variant=pm-drop"]
    curves, saved = {}, {}
    for system in ("plain", "tempo"):
        runs.name = system
        assert runs.train(*arguments, f"system={system}", f"name={system}")[0] == 0
        curves[system] = [loss for _, loss in runs.curve("pm-drop-s0", "train/loss")]
        summary = runs.summaries()["pm-drop-s0"]
        saved[system] = summary["metrics"]["memory/saved_bytes"]
    assert curves["tempo"][0] == curves["plain"][0]
    assert curves["tempo"] == pytest.approx(curves["plain"], rel=1e-4)
    assert saved["tempo"] < saved["plain"]
    record = {k: v for k, v in summary["environment"].items() if k.startswith("tempo.")}
    assert set(record.values()) == {
        f"in-place GELU (erf): backward in one pass by {CORE}",
        f"in-place LayerNorm: {KEEPS_OUTPUT}",
        "dropped probabilities recomputed from bits",
    }
