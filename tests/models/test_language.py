"""Causal language models: what is to be guessed, the loss of transformers itself, and a run on real texts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from composed import config
from pmexp import models
from pmexp.config import ModelKind, Objective, SystemConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.errors import UserError
from pmexp.models.byte_pairs import train_byte_pairs
from pmexp.models.examples import EVALUATION, CausalTokens
from pmexp.systems.system import System
from pmexp.training.loop import Training
from small_kinds import of_kind
from small_runs import Runs

CAUSAL = ("dataset.objective=causal_lm", "dataset.metrics=[perplexity]")
TEXT_RUN = of_kind(ModelKind.bert)
NO_LABELS = np.zeros(0, dtype=np.int64)
LINES = Split(
    [("One line of Words,",), ("",), ("a second: été 漢字\n",), (" and a third one.",)] * 4, NO_LABELS
)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 5))
def test_every_token_but_the_first_is_guessed_once_whatever_the_length(
    count: int, length: int, epoch: int
) -> None:
    ids = np.arange(100, 100 + count, dtype=np.int32)
    examples = CausalTokens(ids, length)
    whole = (count - 1) // length * length
    assert len(examples) == whole // length
    if whole:
        batch = examples.batch(torch.arange(len(examples)), epoch)
        assert batch.inputs["input_ids"].flatten().tolist() == ids[:whole].tolist()
        assert batch.labels.flatten().tolist() == ids[1 : whole + 1].tolist()
        assert batch.targets == whole and batch.positions == (0, 0)


@pytest.mark.parametrize("kind", [ModelKind.gpt2, ModelKind.gptj, ModelKind.llama])
def test_the_loss_is_that_of_transformers_and_parts_sum_to_its_mean(kind: ModelKind) -> None:
    module = models.untrained(of_kind(kind, *CAUSAL), classes=0)
    train = CausalTokens(
        torch.randint(5, 99, (65,), generator=torch.Generator().manual_seed(0)).int().numpy(), 8
    )
    losses = []
    for accumulate in (1, 4):
        run = config("train.epochs=1", "train.batch_size=8", f"train.accumulate={accumulate}").train
        training = Training(module, train, train, run, ["perplexity"], 5, System(SystemConfig()))
        module.eval()  # the same loss in parts and at once
        losses.append(training._gradient(training.parts(0), None).item())
        evaluated = training.evaluator.evaluate(train)
        assert evaluated["perplexity"] == pytest.approx(math.exp(evaluated["loss"]))
    batch = train.batch(torch.arange(8), EVALUATION)
    theirs = module(**batch.inputs, labels=batch.labels, shift_labels=batch.labels.contiguous())
    assert losses == pytest.approx([theirs.loss.item()] * 2) and evaluated["loss"] == pytest.approx(losses[0])
    assert theirs.past_key_values is None  # else each layer copies its keys and values in training


def test_lines_end_where_they_ended() -> None:
    """A file's lines come without their ends, the hub's with them: both are the same text."""
    run = of_kind(ModelKind.gpt2, *CAUSAL, "dataset.max_length=8")
    run.model.architecture["vocab_size"] = 300
    model = models.build(run, Dataset(LINES, LINES, LINES, []))
    examples = model.examples(LINES, 8)
    assert isinstance(examples, CausalTokens)
    tokenizer = train_byte_pairs(LINES, 300)
    lines = "".join(text.removesuffix("\n") + "\n" for (text,) in LINES.inputs)  # type: ignore[union-attr]
    assert tokenizer.decode(examples.ids) == lines


@settings(max_examples=25)
@given(st.text())
def test_byte_pairs_give_any_text_back(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(ids[:-1]) == text


TOKENIZER = train_byte_pairs(LINES, 290)


def test_byte_pairs_are_the_same_each_time_and_have_every_byte() -> None:
    assert train_byte_pairs(LINES, 290).get_vocab() == TOKENIZER.get_vocab()
    assert len(TOKENIZER) == 290 and (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id) == (0, 1)
    with pytest.raises(UserError, match=r"vocab_size: 200 is too small .* choose at least 258"):
        train_byte_pairs(LINES, 200)


@pytest.mark.parametrize(
    ("kind", "objective", "known"),
    [
        (ModelKind.bert, "causal_lm", "classification, regression, token_classification, masked_lm"),
        (ModelKind.gpt2, "masked_lm", "classification, regression, token_classification, causal_lm"),
        (ModelKind.gptj, "masked_lm", "classification, regression, causal_lm"),
        (ModelKind.t5, "causal_lm", "seq2seq"),
    ],
)
def test_an_objective_that_the_model_is_not_made_for_is_refused(
    kind: ModelKind, objective: str, known: str
) -> None:
    with pytest.raises(UserError, match=rf"dataset.objective: {objective} .* one of {known}$"):
        replace(
            TEXT_RUN,
            model=replace(TEXT_RUN.model, kind=kind),
            dataset=replace(TEXT_RUN.dataset, objective=Objective[objective], metrics=["perplexity"]),
        )


def test_gptj_takes_the_task_of_gpt2() -> None:
    run = config("task=gpt2-wikitext103", "model=gptj-6b")
    assert (run.model.kind, run.dataset.objective) == (ModelKind.gptj, Objective.causal_lm)
    assert (run.dataset.max_length, run.labels["task"]) == (1024, "gptj-6b/wikitext103")


def test_gpt2_learns_real_texts(runs: Runs, few_news: str) -> None:
    arguments = [
        "task=smoke/gpt2-wikitext103",
        few_news,
        "tracking=off",
        "train.threads=1",
        "variant=pm-drop",
    ]
    sizes = ["model.architecture.vocab_size=400", "model.architecture.n_layer=1", "dataset.max_length=32"]
    steps = ["train.max_steps=12", "train.lr=5e-3", "train.accumulate=2"]
    code, _, err = runs.train(*arguments, *sizes, *steps, "train.batch_size=64")
    assert code == 0, err
    summary = runs.summaries()["pm-drop-s0"]
    metrics, chance = summary["metrics"], summary["outcome"]["chance"]
    assert metrics["test/perplexity"] < 250 and chance["test/perplexity"] == pytest.approx(400)
    assert metrics["memory/mask_bytes_per_element"] <= 0.13
