"""Numbers of a regression and tags of words, from files of one's own in every format, and what is refused there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import datasets as hf
from own_files import ROWS, rows, write
from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind, Objective
from pmexp.datasets import tagged
from pmexp.datasets.base import Dataset
from pmexp.datasets.tables import Tables
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.errors import UserError
from pmexp.training.outcome import chance, samples


def numbers_of(folder: Path, **keys: Any) -> Dataset:
    keys = {"text_columns": ["text"], "label_column": "number", "metrics": ["mse", "spearman"]} | keys
    return datasets.load(
        DatasetConfig(
            name="own", kind=DatasetKind.text, objective=Objective.regression, path=str(folder), **keys
        )
    )


def tags_of(folder: Path, **keys: Any) -> Dataset:
    keys = {"text_columns": ["words"], "label_column": "tags", "metrics": ["entity_f1", "accuracy"]} | keys
    kind, objective = DatasetKind.tagged, Objective.token_classification
    return datasets.load(DatasetConfig(name="own", kind=kind, objective=objective, path=str(folder), **keys))


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_every_format_gives_the_same_numbers_and_tags(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind)
    data = numbers_of(tmp_path)
    assert data.train.labels.tolist() == [row["number"] for row in rows("train")]
    assert data.train.labels.dtype == np.float32 and data.classes == []
    tagged = tags_of(tmp_path)
    assert tagged.classes == ["B-LOC", "B-PER", "O"] and tagged.digest.startswith("sha256:")
    sentences = tagged.train.inputs
    assert isinstance(sentences, TaggedWords)
    named = [[tagged.classes[tag] for tag in tags] for tags in sentences.tags]
    assert [list(words) for words in sentences.sentences] == [row["words"] for row in rows("train")]
    assert named == [row["tags"] for row in rows("train")]


def test_the_numbers_of_a_hub_dataset_have_the_names_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    features = hf.Features(
        {"words": hf.List(hf.Value("string")), "tags": hf.List(hf.ClassLabel(names=["O", "B-x", "I-x"]))}
    )

    def of_hub(*tags: list[int]) -> DatasetConfig:
        table = {"words": [["word"] * len(each) for each in tags], "tags": list(tags)}
        made = hf.Dataset.from_dict(table, features=features)
        monkeypatch.setattr(
            tagged, "tables", lambda config: Tables({"train": made, "val": made}, "hub", places)
        )
        keys = {"text_columns": ["words"], "label_column": "tags", "metrics": ["entity_f1"]}
        kind, objective = DatasetKind.tagged, Objective.token_classification
        return DatasetConfig(name="own", kind=kind, objective=objective, hub_id="a/b", **keys)

    places = {"train": "hub a/b", "val": "hub a/b"}
    data = tagged.load(of_hub([1, 2, 0], [0]))
    assert [data.classes[tag] for tag in data.train.labels] == ["B-x", "I-x", "O", "O"]
    with pytest.raises(
        UserError, match=r"label_column: -1 in the train split \(hub a/b, row 2\) is none of the 3 tags"
    ):
        tagged.load(of_hub([1], [0, -1]))


def test_validation_is_carved_off_train_whatever_the_labels_are(tmp_path: Path) -> None:
    write(tmp_path, "jsonl", ("train",))
    for load in (numbers_of, tags_of):
        data = load(tmp_path, val_fraction=0.25)
        assert (len(data.train), len(data.val), data.test) == (ROWS - ROWS // 4, ROWS // 4, None)
        again = load(tmp_path, val_fraction=0.25)
        assert np.array_equal(data.val.labels, again.val.labels)
    tagged = tags_of(tmp_path).val.inputs
    assert isinstance(tagged, TaggedWords)
    assert all(len(words) == len(tags) for words, tags in zip(tagged.sentences, tagged.tags, strict=True))


def test_chance_is_that_of_numbers_or_of_words(tmp_path: Path) -> None:
    write(tmp_path, "csv")
    data = numbers_of(tmp_path)
    assert data.test is not None
    of_numbers = chance(data, ["mse", "spearman"], vocabulary=99)
    assert (
        of_numbers["test/mse"] == pytest.approx(np.var(data.test.labels)) and of_numbers["val/spearman"] == 0
    )
    tagged = tags_of(tmp_path)
    others = [tag == "O" for row in rows("test") for tag in row["tags"]]
    assert chance(tagged, ["accuracy", "entity_f1"], 99)["test/accuracy"] == pytest.approx(np.mean(others))
    assert samples(tagged)["test"] == len(others) and samples(data) == {"val": 8, "test": 8}


def test_a_test_split_without_numbers_is_not_scored(tmp_path: Path) -> None:
    write(tmp_path, "jsonl", ("train", "validation"))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "oil"}))
    data = numbers_of(tmp_path)
    assert data.test is None and data.unlabelled_test is not None


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("many", "'many' in the train split .*row 1. is no number, as 2.5 or -1e3 are"),
        (None, "None in the train split .*row 1. is no number"),
        (True, "True in the train split .*row 1. is no number"),
        ("1e99", "'1e99' in the train split .*row 1. is missing or too large"),
        (10**400, "1000.* in the train split .*row 1. is missing or too large"),
        (float("nan"), "nan in the train split .*row 1. is missing or too large"),
    ],
)
def test_what_is_no_number_is_one_line(number: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, "jsonl")
    file = tmp_path / "train.jsonl"
    _, *others = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps({"text": "oil", "number": number}), *others]))
    with pytest.raises(UserError, match=f"dataset.label_column: {message}"):
        numbers_of(tmp_path)


def test_numbers_that_are_all_one_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "jsonl")
    (tmp_path / "train.jsonl").write_text('{"text": "oil", "number": 2}\n{"text": "grain", "number": 2.0}')
    with pytest.raises(
        UserError, match=r"every row of the train split .* has the number 2; a regression needs"
    ):
        numbers_of(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"words": ["a", "b"], "tags": ["O"]},
            "label_column: the train split .*row 2. has 1 tag for 2 words",
        ),
        ({"words": [], "tags": []}, "text_columns: words in the train split .*row 2. is missing or empty"),
        ({"words": ["a"]}, "label_column: tags in the train split .*row 2. is missing or empty"),
        ({"words": ["a", 7], "tags": ["O", "O"]}, "text_columns: 7 in the train split .*row 2. is no word"),
        (
            {"words": {"a": 1}, "tags": ["O"]},
            "text_columns: words in .*row 2. is of type dict; give a list of words",
        ),
        ({"words": ["a"], "tags": ["NN"]}, "metrics: entity_f1 reads tags such as B-PER, .* has 'NN'"),
    ],
)
def test_words_and_tags_that_do_not_fit_are_one_line(row: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, "jsonl")
    file = tmp_path / "train.jsonl"
    first, _, *others = file.read_text().splitlines()
    file.write_text("\n".join([first, json.dumps(row), *others]))
    with pytest.raises(UserError, match=f"dataset.{message}"):
        tags_of(tmp_path)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, "csv")
    with pytest.raises(UserError, match=r"dataset.label_column: 'score' is not a column of the train split"):
        numbers_of(tmp_path, label_column="score")
    with pytest.raises(UserError, match=r"dataset.label_column: 'ner' is not a column of the train split"):
        tags_of(tmp_path, label_column="ner")
    with pytest.raises(UserError, match=r"dataset.text_columns: \['words', 'text'\] must name one column"):
        tags_of(tmp_path, text_columns=["words", "text"])


@pytest.mark.parametrize(
    ("kind", "objective", "message"),
    [
        ("text", "token_classification", "whose samples are for classification or regression or masked_lm"),
        ("tagged", "classification", "whose samples are for token_classification; choose that"),
        ("digits", "regression", "whose samples are for classification; choose that"),
        ("language", "classification", "whose samples are for masked_lm or causal_lm"),
    ],
)
def test_an_objective_that_the_samples_are_not_of_is_one_line(
    kind: str, objective: str, message: str
) -> None:
    with pytest.raises(
        UserError, match=f"dataset.objective: {objective} does not fit dataset.kind={kind}, {message}"
    ):
        DatasetConfig(name="own", kind=DatasetKind[kind], objective=Objective[objective])


def loaded(kind: str, objective: str, **options: Any) -> Dataset:
    return datasets.load(
        DatasetConfig(
            name="own", kind=DatasetKind[kind], objective=Objective[objective], loader="own_models.load_labels",
            options=options, metrics=["mse"] if objective == "regression" else ["accuracy"],
        )
    )  # fmt: skip


def test_a_loader_of_ones_own_gives_numbers_and_tags_with_their_digest() -> None:
    assert loaded("text", "regression", dtype="float32").digest != loaded("text", "classification").digest
    tagged = loaded("tagged", "token_classification", tagged=True)
    assert isinstance(tagged.train.inputs, TaggedWords) and tagged.digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("kind", "objective", "options", "said"),
    [
        ("text", "regression", {}, "its train has labels int64; give float32 for a regression"),
        (
            "text",
            "classification",
            {"dtype": "float64"},
            "its train has labels float64; give int64 for classification",
        ),
        (
            "tagged",
            "token_classification",
            {},
            "its train has inputs list; give TaggedWords for token_classification",
        ),
        (
            "text",
            "classification",
            {"tagged": True},
            "its train has inputs TaggedWords; give TaggedWords for token",
        ),
    ],
)
def test_labels_that_the_loss_would_take_for_others_are_one_line(
    kind: str, objective: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=f"dataset.loader: own_models.load_labels: {said}"):
        loaded(kind, objective, **options)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("generator", "its train has inputs generator, which nobody can count; give all of them"),
        ("object", "its train has inputs in object; give a NumPy array of .* in float32 or uint8"),
        ("float64", "its train has inputs in float64; give a NumPy array of .* in float32 or uint8"),
        ("set", "its classes are a set; give a list of names, in the order of the labels"),
    ],
)
def test_pictures_that_no_model_takes_are_one_line(odd: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^dataset.loader: own_models.load_odd: {said}"):
        datasets.load(of_odd_pictures(odd))


def test_pictures_in_another_order_of_memory_are_those_of_a_copy() -> None:
    split = datasets.load(of_odd_pictures("reversed")).train
    torch.from_numpy(split.labels)
    assert torch.equal(
        torch.from_numpy(split.inputs), torch.from_numpy(datasets.load(of_odd_pictures("none")).train.inputs)
    )


def of_odd_pictures(odd: str) -> DatasetConfig:
    return DatasetConfig(
        name="odd",
        kind=DatasetKind.digits,
        loader="own_models.load_odd",
        options={"odd": odd},
        metrics=["accuracy"],
    )


@pytest.mark.parametrize(
    ("load", "columns"), [(numbers_of, ["same"]), (numbers_of, ["text", "text"]), (tags_of, ["same"])]
)
def test_a_column_that_would_be_two_things_is_one_line(load: Any, columns: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset.text_columns: '(same|text)' cannot be two things"):
        load(write(tmp_path, "jsonl"), text_columns=columns, label_column="same")


def test_sentences_of_train_in_another_split_are_told(tmp_path: Path) -> None:
    assert "samples of the test split are in the train split too" in tags_of(write(tmp_path, "jsonl")).doubts
