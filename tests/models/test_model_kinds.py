"""Every supported architecture trains from the command's configuration, at both objectives it can have."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pmexp import models
from pmexp.config import ModelKind, Objective
from pmexp.config.kinds import KINDS
from small_kinds import SIZES, WIDTHS, of_kind
from small_runs import TINY_BERT, Runs

MASKED = [kind for kind in KINDS if Objective.masked_lm in KINDS[kind].objectives]


@pytest.mark.parametrize("kind", KINDS)
def test_rates_reach_every_dropout(kind: ModelKind) -> None:
    fields = KINDS[kind]
    attention = ["model.attention_dropout=0.375"] if fields.attention_dropout else []
    module = models.untrained(of_kind(kind, "model.hidden_dropout=0.25", *attention), classes=3)
    assert module.config.num_labels == 3 or Objective.classification not in fields.objectives
    assert all(getattr(module.config, name) == 0.25 for name in fields.hidden_dropout)
    assert all(getattr(module.config, name) == 0.375 for name in fields.attention_dropout)
    rates = {part.p for part in module.modules() if isinstance(part, torch.nn.Dropout)}
    calls_functions = kind in (ModelKind.bart, ModelKind.llama)
    assert rates <= {0.25, 0.375} and (0.25 in rates) != calls_functions
    by_variant = models.untrained(of_kind(kind, "variant.p=0.5", "model.hidden_dropout=0.25"), classes=3)
    assert all(
        getattr(by_variant.config, name) == 0.5
        for name in (*fields.hidden_dropout, *fields.attention_dropout)
    )
    assert {part.p for part in by_variant.modules() if isinstance(part, torch.nn.Dropout)} <= {0.5}


@pytest.mark.parametrize("kind", MASKED)
def test_a_masked_language_model_has_a_score_for_every_token(kind: ModelKind) -> None:
    run = of_kind(kind, "dataset.objective=masked_lm", "dataset.metrics=[perplexity]", "model.positions=600")
    module = models.untrained(run, classes=0)
    ids = torch.randint(5, 99, (1, 600))
    assert module(input_ids=ids).logits.shape == (1, 600, 99)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "longformer"])
def test_it_trains_on_real_texts(kind: str, runs: Runs, few_news: str) -> None:
    sizes = [f"++model.architecture.{k}={v}" for k, v in SIZES.get(ModelKind[kind], {}).items()]
    base = [*TINY_BERT, few_news, f"model.kind={kind}", "train.max_steps=3", "tracking=off"]
    code, _, err = runs.train(*base, *sizes, "train.batch_size=4", "variant=pm-drop")
    assert code == 0, err
    assert runs.summaries()["pm-drop-s0"]["metrics"]["memory/mask_bytes_per_element"] <= 0.13


def test_a_masked_language_model_learns_and_keeps_its_best_weights(runs: Runs, few_news: str) -> None:
    """BERT's word table is tied to its output: one tensor under two names in the weights kept."""
    arguments = [*TINY_BERT, "dataset.objective=masked_lm", "dataset.metrics=[perplexity]", "tracking=off"]
    code, _, err = runs.train(
        *arguments, few_news, "variant=pm-drop", "train.max_steps=12", "train.lr=5e-3", "train.accumulate=2"
    )
    assert code == 0, err
    metrics = runs.summaries()["pm-drop-s0"]["metrics"]
    assert metrics["test/perplexity"] < 800  # it starts at 1000, the number of tokens
    assert metrics["val/perplexity"] == pytest.approx(2.718281828459045 ** metrics["val/loss"])


def test_expressions_of_symbols_are_learnt_from(runs: Runs, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PMEXP_CACHE", str(tmp_path / "cache"))
    arguments = [
        *("model=longformer-base-4096", "model.pretrained=false", "model.architecture.attention_window=16"),
        *(f"model.architecture.{key}={value}" for key, value in WIDTHS.items()),
        *("dataset=listops", "dataset.trees.samples=100", "dataset.trees.min_length=10"),
        *("dataset.trees.max_length=200", "dataset.max_length=256", "train.max_steps=2", "train.threads=1"),
        *("train.batch_size=4", "tracking=off", "variant=pm-drop"),
    ]
    code, _, err = runs.train(*arguments)
    assert code == 0, err
    summary = runs.summaries()["pm-drop-s0"]
    assert summary["environment"]["weights"] == "random, random: token embeddings of the symbols"
    assert summary["metrics"]["memory/mask_bytes_per_element"] <= 0.13


def test_metrics_of_the_other_objective_are_refused(runs: Runs) -> None:
    code, _, err = runs.train(*TINY_BERT, "dataset.objective=masked_lm")
    assert code == 2 and "name some of perplexity" in err
    code, _, err = runs.train(*TINY_BERT, "train.accumulate=5")
    assert code == 2 and "does not divide train.batch_size=32" in err
