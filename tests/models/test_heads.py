"""Heads of checkpoints whose classes the dataset has too, in another order or not, and their classes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from composed import config
from pmexp.errors import UserError
from pmexp.models.checkpoint import load_pretrained
from small_checkpoints import SIZES, rewrite

NAMES = ["dog", "cat", "eel"]  # as config.json of the checkpoint has them
PICTURES: dict[str, Any] = {
    "image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16,
}  # fmt: skip
TOKENS = {"input_ids": torch.arange(10)[None]}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 192).view(1, 3, 8, 8)}
KINDS: list[Any] = [
    (AutoModelForSequenceClassification, BertForSequenceClassification, BertConfig, SIZES, TOKENS),
    (AutoModelForSequenceClassification, RobertaForSequenceClassification, RobertaConfig, SIZES, TOKENS),
    (AutoModelForTokenClassification, BertForTokenClassification, BertConfig, SIZES, TOKENS),
    (AutoModelForImageClassification, DeiTForImageClassification, DeiTConfig, PICTURES, PIXELS),
    (AutoModelForImageClassification, DeiTForImageClassificationWithTeacher, DeiTConfig, PICTURES, PIXELS),
]
RUN = config("model=auto", "model.path=.", "dataset=sst2", "dataset.path=.")


def saved(folder: Path, cls: Any, configuration: Any, sizes: dict[str, Any], names: list[str]) -> Any:
    torch.manual_seed(0)
    module = cls(configuration(**sizes, id2label=dict(enumerate(names))))
    module.save_pretrained(folder)
    return module.eval()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1].__name__)
def test_a_head_says_the_classes_of_the_dataset_in_their_order(kind: Any, tmp_path: Path) -> None:
    auto, cls, configuration, sizes, inputs = kind
    before = saved(tmp_path, cls, configuration, sizes, NAMES)
    loaded = load_pretrained(auto, tmp_path, RUN, ["CAT", "dog", "eel"])
    assert type(loaded.module) is cls
    logits = loaded.module.eval()(**inputs).logits
    torch.testing.assert_close(logits, before(**inputs).logits[..., [1, 0, 2]])
    assert loaded.weights == f"{tmp_path}, head of dog, cat, eel in the order of the dataset's classes"


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["Dog", "cat", "eel"], ""),
        (["ant", "bee", "cow"], ", head of dog, cat, eel in the places of ant, bee, cow"),
        (["0", "1", "2"], ", head of dog, cat, eel in the places of 0, 1, 2"),
        (["cat", "dog"], ", random: classifier.bias, classifier.weight"),
    ],
)
def test_a_head_of_other_classes_is_said(
    classes: list[str], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = saved(tmp_path, BertForSequenceClassification, BertConfig, SIZES, NAMES)
    with caplog.at_level(logging.WARNING):
        loaded = load_pretrained(AutoModelForSequenceClassification, tmp_path, RUN, classes)
    assert loaded.weights == f"{tmp_path}{said}"
    assert ("it begins with what it has learned of those" in caplog.text) == ("places" in said)
    assert torch.equal(loaded.module.classifier.weight, before.classifier.weight) or len(classes) == 2


def test_a_head_without_names_of_classes_stays(tmp_path: Path) -> None:
    saved(tmp_path, BertForSequenceClassification, BertConfig, SIZES, [f"LABEL_{n}" for n in range(3)])
    loaded = load_pretrained(AutoModelForSequenceClassification, tmp_path, RUN, ["label_1", "label_0", "x"])
    assert loaded.weights == str(tmp_path)


def test_code_that_a_checkpoint_names_is_said_not_to_run(tmp_path: Path) -> None:
    saved(tmp_path, BertForSequenceClassification, BertConfig, SIZES, NAMES)
    rewrite(tmp_path / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling_own.Own"})
    loaded = load_pretrained(AutoModelForSequenceClassification, tmp_path, RUN, sorted(NAMES))
    assert loaded.architecture == "code of its own (auto_map), which is not run"


@pytest.mark.parametrize(
    ("cls", "is_random"), [(BertForSequenceClassification, True), (BertForMaskedLM, False)]
)
def test_a_head_that_writes_and_begins_at_random_is_warned_of(
    cls: Any, is_random: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, cls, BertConfig, SIZES, ["no", "yes"])
    run = config("model=auto", "model.path=.", "dataset=wikitext103", "dataset.path=.")
    with caplog.at_level(logging.WARNING):
        loaded = load_pretrained(AutoModelForMaskedLM, tmp_path, run, [])
    assert ("random: cls.predictions" in loaded.weights) == is_random
    assert ("a head that writes tokens begins at random" in caplog.text) == is_random


def test_a_checkpoint_that_does_not_say_its_architecture_is_one_line(tmp_path: Path) -> None:
    saved(tmp_path, BertForSequenceClassification, BertConfig, SIZES, NAMES)
    rewrite(tmp_path / "config.json", model_type=None)
    with pytest.raises(UserError, match=r"^model\.path: config.json in .* names no model_type; write"):
        load_pretrained(AutoModelForSequenceClassification, tmp_path, RUN, NAMES)
