"""Sequence-to-sequence models: teacher forcing, texts that are written the same way each time, and their BLEU."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from torch import nn

from composed import config
from pmexp import datasets, models
from pmexp.config import ModelKind, Padding, RunConfig
from pmexp.datasets.base import Dataset
from pmexp.errors import UserError
from pmexp.models.base import TaskModel
from pmexp.models.byte_pairs import train_byte_pairs
from pmexp.models.examples import EVALUATION, IGNORED
from pmexp.models.pairs import PairExamples, TokenRows
from pmexp.systems.system import System
from pmexp.training.loop import Training
from pmexp.training.preflight import check_metrics
from pmexp.variants.replace import apply_variant
from small_kinds import PAIRS, of_kind
from small_runs import Runs

SMALL = ("dataset.max_length=12", "dataset.max_target_length=10", "train.batch_size=8", "train.epochs=1")
VOCABULARY = 300


@pytest.fixture(scope="module")
def messages() -> Dataset:
    data = datasets.load(
        config("dataset=django-messages", "model=t5-small", "model.pretrained=false").dataset
    )
    few = torch.arange(0, 60).numpy()
    assert data.test is not None
    return replace(
        data, train=data.train.take(few), val=data.val.take(few[:21]), test=data.test.take(few[:9])
    )


def run_of(kind: ModelKind, *overrides: str) -> RunConfig:
    run = of_kind(kind, *SMALL, *overrides)
    run.model.architecture["vocab_size"] = VOCABULARY
    return run


def trained(run: RunConfig, data: Dataset) -> tuple[Training, TaskModel]:
    torch.manual_seed(run.seed)
    model = models.build(run, data)
    apply_variant(model.module, run.variant)
    train, val = (model.examples(split, run.dataset.max_length) for split in (data.train, data.val))
    training = Training(
        model.module, train, val, run.train, ["bleu"], 5, System(run.system), generation=model.generation
    )
    return training, model


TEXT = st.lists(st.integers(2, 98), min_size=1, max_size=10)


@settings(max_examples=25)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=5), st.sampled_from(Padding))
def test_a_decoder_reads_its_target_one_token_late(
    pairs: list[tuple[list[int], list[int]]], how: Padding
) -> None:
    module = MODULES[ModelKind.t5]
    sources, targets = (TokenRows(texts) for texts in zip(*pairs, strict=True))
    references = [str(target) for _, target in pairs]
    examples = PairExamples(
        sources, targets, references, (10, 10), how, 0, module.prepare_decoder_input_ids_from_labels
    )
    rows = torch.arange(len(pairs)).flip(0)
    batch = examples.batch(rows, EVALUATION)
    assert list(batch.references) == references[::-1] and not examples.batch(rows, 0).references
    mask, read = batch.inputs["attention_mask"], batch.inputs["decoder_input_ids"]
    for place, row in enumerate(rows.tolist()):
        source, target = pairs[row]
        assert batch.inputs["input_ids"][place][mask[place] == 1].tolist() == source
        counted = batch.labels[place] != IGNORED
        assert batch.labels[place][counted].tolist() == target and counted.sum() == len(target)
        assert read[place, : len(target)].tolist() == [0, *target[:-1]]
    tokens = sum(len(text) for pair in pairs for text in pair)
    assert batch.positions == (mask.numel() + read.numel(), mask.numel() + read.numel() - tokens)
    assert examples.lengths.tolist() == [len(source) + len(target) for source, target in pairs]


MODULES: dict[ModelKind, Any] = {kind: models.untrained(of_kind(kind), classes=0).eval() for kind in PAIRS}


@pytest.mark.parametrize("kind", PAIRS)
def test_the_loss_is_that_of_transformers_however_it_is_padded_and_split(
    kind: ModelKind, messages: Dataset
) -> None:
    losses = []
    for padding, parts in (("max", 1), ("longest", 2), ("bucketed", 4)):
        run = run_of(kind, f"dataset.padding={padding}", f"train.accumulate={parts}", "variant.p=0.0")
        training, model = trained(run, messages)
        training._order = (0, torch.arange(len(messages.train)))
        losses.append(training._gradient(training.parts(0), None).item())
    batch = model.examples(messages.train, 12).batch(torch.arange(8), 0)
    sources = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    theirs = model.module(**sources, labels=batch.labels)
    assert losses == pytest.approx([theirs.loss.item()] * 3, rel=1e-5)
    assert theirs.past_key_values is None  # else each layer copies its keys and values in training


@pytest.mark.parametrize("kind", PAIRS)
def test_a_checkpoint_translates_as_the_model_that_was_saved(
    kind: ModelKind, messages: Dataset, tmp_path: Path
) -> None:
    run = run_of(kind)
    training, model = trained(run, messages)
    module: Any = model.module
    module.generation_config.no_repeat_ngram_size = 1  # the folder's own wishes are not read
    module.save_pretrained(tmp_path)
    train_byte_pairs(messages.train, VOCABULARY).save_pretrained(tmp_path)
    run.model.pretrained, run.model.path = True, str(tmp_path)
    module.generation_config.no_repeat_ngram_size = None
    loaded, again = trained(run, messages)
    assert again.weights == str(tmp_path) and not again.architecture
    first, second = training.evaluator.predict(training.val), loaded.evaluator.predict(loaded.val)
    assert first is not None and second is not None
    assert (first.loss, first.written) == (second.loss, second.written)


@pytest.mark.parametrize("kind", [*PAIRS, ModelKind.gpt2])
def test_packed_with_the_same_masks_a_step_is_the_stock_model_bit_for_bit(
    kind: ModelKind, messages: Dataset
) -> None:
    losses, gradients = [], []
    for variant in ("baseline", "pm-drop-same-masks"):
        if kind in PAIRS:
            run = run_of(kind, f"variant={variant}", "variant.p=0.3")
            module: nn.Module = models.build(run, messages).module
        else:
            causal = ("dataset.objective=causal_lm", "dataset.metrics=[perplexity]")
            run = of_kind(kind, f"variant={variant}", "variant.p=0.3", *causal)
            module = models.untrained(run, classes=0)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
        report = apply_variant(module.train(), run.variant)
        ids = torch.arange(3, 51).view(4, 12)
        torch.manual_seed(3)
        loss = module(input_ids=ids, labels=ids.flip(1)).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: parameter.grad for name, parameter in module.named_parameters()})
        assert variant == "baseline" or not report.left
    assert torch.equal(*losses)
    assert all(torch.equal(grad, gradients[1][name]) for name, grad in gradients[0].items())
    assert all(grad.abs().sum() > 0 for grad in gradients[0].values())


@pytest.mark.parametrize(("kind", "beams"), [(ModelKind.t5, 3), (ModelKind.bart, 1)])
def test_texts_are_written_alike_each_time_and_scored_together(
    kind: ModelKind, beams: int, messages: Dataset
) -> None:
    run = run_of(
        kind, f"dataset.generation.beams={beams}", "dataset.generation.max_length=6", "variant=pm-drop"
    )
    training, model = trained(run, messages)
    training.module.train()
    state = torch.get_rng_state()
    first, second = training.evaluator.predict(training.val), training.evaluator.predict(training.val)
    assert torch.equal(torch.get_rng_state(), state)  # no dropout, no sampling
    assert first is not None and second is not None
    assert list(first.written) == list(second.written) and first.loss == second.loss
    assert list(first.references) == [target for _, target in messages.val.inputs]  # type: ignore[union-attr]
    whole = BLEU().corpus_score(list(first.written), [list(first.references)]).score
    assert training.evaluator.evaluate(training.val)["bleu"] == whole
    batch = model.examples(messages.val, 12).batch(torch.arange(8), EVALUATION)
    written: Any = model.module.generate(
        batch.inputs["input_ids"],
        attention_mask=batch.inputs["attention_mask"],
        num_beams=beams,
        max_new_tokens=6,
        do_sample=False,
    )
    assert written.shape[1] <= 7
    texts = model.generation._tokenizer.batch_decode(written, skip_special_tokens=True)  # type: ignore[union-attr]
    assert list(first.written[:8]) == texts


def test_bleu_of_the_references_is_100(messages: Dataset, monkeypatch: Any) -> None:
    training, model = trained(run_of(ModelKind.t5), messages)
    known = [target for _, target in messages.val.inputs]  # type: ignore[union-attr]
    monkeypatch.setattr(
        model.generation, "texts", lambda inputs, synced: [known.pop(0) for _ in inputs["input_ids"]]
    )
    assert training.evaluator.evaluate(training.val)["bleu"] == pytest.approx(100)


def test_without_sacrebleu_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    run = of_kind(ModelKind.t5)
    check_metrics(run)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(
        UserError, match=r"dataset.metrics: bleu .* pip install 'pmexp\[translation\]' brings it"
    ):
        check_metrics(run)


def test_t5_translates_real_messages(runs: Runs, tmp_path: Path) -> None:
    arguments = ["task=smoke/t5-small-wmt16", "tracking=off", "train.threads=1", "variant=pm-drop"]
    sizes = ["model.architecture.num_layers=1", "model.architecture.vocab_size=400"]
    code, _, err = runs.train(
        *arguments, *sizes, "train.max_steps=12", "train.lr=5e-3", "train.batch_size=32"
    )
    assert code == 0, err
    summary = runs.summaries()["pm-drop-s0"]
    metrics = summary["metrics"]
    losses = [value for _, value in runs.curve("pm-drop-s0", "train/loss")]
    assert losses[-1] < losses[0] - 0.5
    assert 0 <= metrics["test/bleu"] <= 100 and summary["outcome"]["chance"]["test/bleu"] == 0
    assert summary["environment"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert summary["environment"]["generation"] == "greedily, at most 16 tokens"
    assert metrics["memory/mask_bytes_per_element"] <= 0.13 and 0 < metrics["progress/padding"] < 1
