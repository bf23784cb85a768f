"""Tokenizers and checkpoints: made here, saved to a folder and loaded as a user's would be."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from composed import config
from pmexp import models
from pmexp.datasets.base import Dataset, Split
from pmexp.models.text import train_tokenizer
from small_runs import Runs

TEXTS = [
    ("The profit rose; profits rise.",),
    ("Grain shipments fell, ship by ship.",),
    ("crude oil #42 été",),
]
TRAIN = Split(TEXTS * 3, np.zeros(9, dtype=np.int64))

FROM_CHECKPOINT = ["model=tinybert", "dataset=reuters-r8", "dataset.max_length=32", "train.threads=1"]


def test_the_vocabulary_is_the_same_every_time() -> None:
    vocabularies = [train_tokenizer(TRAIN, 80).get_vocab() for _ in range(5)]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    assert len(vocabularies[0]) <= 80 and vocabularies[0]["[PAD]"] == 0


def test_it_tokenizes_as_bert_does() -> None:
    tokenizer = train_tokenizer(TRAIN, 80)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Ship été##s")["input_ids"])
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
    assert "".join(token.removeprefix("##") for token in tokens[1:-1]) == "shipete##s"
    pair = tokenizer("oil", "grain", padding="max_length", max_length=20, truncation=True)
    assert pair["token_type_ids"][1] == 0 and 1 in pair["token_type_ids"]
    assert len(pair["input_ids"]) == 20 and sum(pair["attention_mask"]) < 20


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    tokenizer = train_tokenizer(TRAIN, 80)
    config = BertConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(1)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_checkpoint_is_fine_tuned(checkpoint: Path, runs: Runs, few_news: str) -> None:
    arguments = [
        *FROM_CHECKPOINT,
        few_news,
        f"model.path={checkpoint}",
        "train.max_steps=2",
        "tracking=off",
    ]
    assert runs.train(*arguments, "variant=pm-drop")[0] == 0
    summary = runs.summaries()["pm-drop-s0"]
    assert summary["environment"]["weights"] == f"{checkpoint}, random: classifier.bias, classifier.weight"
    assert summary["replacement"]["functions"] == ["bert.encoder.layer.0.attention.self"]
    assert summary["settings"]["train.lr"] == 5e-5


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_variants_rate_reaches_modules_and_functions(pretrained: bool, checkpoint: Path) -> None:
    overrides = [f"model.path={checkpoint}"] if pretrained else ["model.pretrained=false"]
    run = config(
        "model=tinybert", "dataset=reuters-r8", "dataset.max_length=32", "variant.p=0.37", *overrides
    )
    data = Dataset(TRAIN, TRAIN, None, ["0"])
    bert = models.build(run, data).module
    rates = {module.p for module in bert.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.37}
    assert bert.config.attention_probs_dropout_prob == 0.37


def drop_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "the weights in .* cannot be loaded"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
            "the weights in .* cannot be loaded",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "the configuration in .* cannot be loaded"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2"}'),
            "of type gpt2; .* is a bert",
        ),
        (drop_a_tensor, "lack bert.encoder.layer.0.output.dense.weight"),
    ],
    ids=[
        "missing weights",
        "truncated weights",
        "damaged configuration",
        "another architecture",
        "incomplete weights",
    ],
)
def test_a_broken_checkpoint_is_one_line(spoil, message: str, checkpoint: Path, runs: Runs) -> None:  # type: ignore[no-untyped-def]
    spoil(checkpoint)
    code, _, err = runs.train(*FROM_CHECKPOINT, f"model.path={checkpoint}")
    assert code == 2 and re.search(message, err) and err.count("\n") == 1
    assert runs.run_folders() == []


def test_a_checkpoint_with_fewer_positions_than_tokens(checkpoint: Path, runs: Runs) -> None:
    arguments = [*FROM_CHECKPOINT, f"model.path={checkpoint}", "dataset.max_length=65"]
    code, _, err = runs.train(*arguments)
    assert code == 2 and "exceeds the 64 positions" in err
