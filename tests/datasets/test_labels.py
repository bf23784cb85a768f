"""LabelColumn of all splits are checked before anything is trained, and what they became is on record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import datasets as hf
from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.datasets.base import Dataset
from pmexp.datasets.labels import LabelColumn, numbered
from pmexp.errors import UserError


def of(train: list[Any], **splits: list[Any]) -> tuple[list[str], dict[str, list[int]]]:
    labels = {
        split: LabelColumn(f"{split}.x", values) for split, values in {"train": train, **splits}.items()
    }
    classes, numbers = numbered(labels)
    return classes, {split: array.tolist() for split, array in numbers.items()}


def load(folder: Path) -> Dataset:
    return datasets.load(
        DatasetConfig(name="set", kind=DatasetKind.text, path=str(folder), text_columns=["text"])
    )


def write(folder: Path, kind: str, **splits: list[Any]) -> None:
    for split, labels in splits.items():
        frame = pd.DataFrame({"text": [f"text {row}" for row in range(len(labels))], "label": labels})
        if kind == "csv":
            frame.to_csv(folder / f"{split}.csv", index=False)
        elif kind == "parquet":
            frame.to_parquet(folder / f"{split}.parquet")
        else:
            lines = [json.dumps({"text": str(row), "label": label}) for row, label in enumerate(labels)]
            (folder / f"{split}.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([0, 2, 1, 0], ["0", "1", "2"], [0, 2, 1, 0]),
        (["0", "2", "1"], ["0", "1", "2"], [0, 2, 1]),
        ([1, 2, 3, 4, 5, 1], ["1", "2", "3", "4", "5"], [0, 1, 2, 3, 4, 0]),
        ([0, 5_000_000], ["0", "5000000"], [0, 1]),
        ([10**30, 9], ["9", "1" + "0" * 30], [1, 0]),
        (["10", "9", "2"], ["2", "9", "10"], [2, 1, 0]),
        (["1" + "0" * 5000, "9"], ["9", "1" + "0" * 5000], [1, 0]),
        (["spam", "ham"], ["ham", "spam"], [1, 0]),
        (["01", "10", "02"], ["01", "02", "10"], [0, 2, 1]),
        ([True, False], ["False", "True"], [1, 0]),
        (["NA", "null", "nan", "None"], ["NA", "None", "nan", "null"], [0, 3, 2, 1]),
        (["1e5f", "12e4"], ["12e4", "1e5f"], [1, 0]),
        (["a b", "ab", "A c"], ["A c", "a b", "ab"], [1, 2, 0]),
    ],
)
def test_labels_are_names_and_whole_numbers_keep_their_order(
    labels: list[Any], classes: list[str], numbers: list[int]
) -> None:
    assert of(labels, val=labels[::-1]) == (classes, {"train": numbers, "val": numbers[::-1]})


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, None, 1], "None in the train split (train.x, row 2) is missing"),
        (["a", "", "b"], "'' in the train split (train.x, row 2) is missing"),
        ([0.0, None, 1.0], "None in the train split (train.x, row 2) is missing"),
        ([0, float("nan"), 1], "nan in the train split (train.x, row 2) is missing"),
        ([0, 1, [1]], "[1] in the train split (train.x, row 3) is of type list"),
        ([0, {"a": 1}], "(train.x, row 2) is of type dict"),
        ([0.0, 1.0], "0.0 in the train split (train.x, row 1) is of type float"),
        ([0, float("inf")], "is of type float"),
        ([b"a", b"b"], "is of type bytes"),
        (["0.5", "1.5"], "'0.5' in the train split (train.x, row 1) is no whole number"),
        (["1", "1e3"], "'1e3' in the train split (train.x, row 2) is no whole number"),
        ([1, -2], "-2 in the train split (train.x, row 2) is no whole number"),
        ([0, 1, -1], "-1 in the train split (train.x, row 3) means 'no label'"),
        ([-1, -1], "-1 in the train split (train.x, row 1) means 'no label'"),
        (["0", "1", "nan"], "'nan' in the train split (train.x, row 3) is a name and '0' a number"),
        ([0, True], "True in the train split (train.x, row 2) is a name and '0' a number"),
        (["a", "a"], "every row of the train split (train.x) is of the class 'a'; a classifier needs two"),
        (["a", "a "], "'a ' in the train split (train.x, row 2) looks like 'a' and is another text"),
        ([" a", "a"], "'a' in the train split (train.x, row 2) looks like ' a'"),
        (["a\xa0b", "a b"], "looks like 'a b'"),
        (["a\u200b", "a"], "'a\\u200b' in the train split (train.x, row 1) looks like 'a'"),
        (["e\u0301", "\xe9"], "differs from 'e\u0301' in Unicode form alone; write both the same way"),
        (
            ["007", "7"],
            "'7' in the train split (train.x, row 2) is the number '007' in another spelling; write both",
        ),
        (["1", "0", "01"], "'1' in the train split (train.x, row 1) is the number '01' in another spelling"),
        (["1" + "0" * 5000, "01" + "0" * 5000], "in another spelling"),
        ([" 01", "001", "a"], "is the number ' 01' in another spelling"),
        (
            ["pos", "neg", "Pos"],
            "'pos' in the train split (train.x, row 1) is 'Pos' but for upper and lower case",
        ),
        ([True, "true"], "is 'True' but for upper and lower case; write both the same way"),
        (["0.0", "1.0"], "allowed are names of classes or whole numbers from 0, as 1 and not 1.0"),
        (["a", "\ud800"], "(train.x, row 2) is half of a character"),
        (["a" * 500, None], "None in the train split"),
    ],
)
def test_what_no_loss_can_take_is_named_by_file_and_row(labels: list[Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        of(labels)
    assert said in str(caught.value) and str(caught.value).startswith("dataset.label_column: ")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 2], "2 in the test split (test.x, row 2) is not a class of the train split: 0, 1"),
        ([0, -1], "-1 in the test split (test.x, row 2) is not a class"),
        (
            ["00"],
            "'00' in the test split (test.x, row 1) is not a class of the train split: 0, 1; it is the number '0' in another spelling",
        ),
        ([1.0], "1.0 in the test split (test.x, row 1) is of type float"),
        ([None], "None in the test split (test.x, row 1) is missing"),
        (["", ""], "without the whole column test is predicted and not scored"),
    ],
)
def test_other_splits_have_the_classes_of_train(labels: list[Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        of([0, 1], test=labels)
    assert said in str(caught.value)
    assert of([0, 1], test=[-1, -1])[1]["test"] == of([0, 1], test=["-1", "-1"])[1]["test"] == [-1, -1]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("caf\xe9", "it differs from 'cafe\u0301' in Unicode form alone; write both the same way"),
        ("Tea", "dataset.case_sensitive_labels=true"),
        ("tea ", "it looks like 'tea' and is another text; write both the same way"),
    ],
)
def test_a_label_of_another_split_that_is_nearly_a_class_says_so(label: str, said: str) -> None:
    with pytest.raises(
        UserError, match=r"in the test split \(test.x, row 1\) is not a class of the"
    ) as caught:
        of(["cafe\u0301", "tea"], test=[label])
    assert str(caught.value).endswith(said)


def test_case_is_a_class_where_it_is_said_so(tmp_path: Path) -> None:
    write(tmp_path, "csv", train=["Rh", "rh", "RH", "rh"], dev=["RH", "rh"])
    config = DatasetConfig(
        name="set",
        kind=DatasetKind.text,
        path=str(tmp_path),
        text_columns=["text"],
        case_sensitive_labels=True,
    )
    data = datasets.load(config)
    assert data.classes == ["RH", "Rh", "rh"] and data.train.labels.tolist() == [1, 2, 0, 2]
    write(tmp_path, "csv", train=["Rh", "rh"], dev=["rh "])
    with pytest.raises(UserError, match=r"it looks like 'rh' and is another text; write both the same way$"):
        datasets.load(config)


def test_classes_of_one_row_are_named_as_the_file_has_them(tmp_path: Path) -> None:
    names = [f"topic-{number:02}" for number in range(30)]
    write(tmp_path, "csv", train=[*names, "common", "common"])
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    said = str(caught.value)
    assert "one sample each is of classes topic-00, topic-01, " in said and "topic-09 and 20 more" in said


@given(
    st.lists(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers()),
            st.sampled_from(["0", "1", "2", "-1", "1.0", "nan", "a"]),
        ),
        min_size=1,
    )
)  # fmt: skip
@settings(max_examples=60)
def test_any_labels_are_indices_of_their_names_or_one_line(labels: list[Any]) -> None:
    try:
        classes, numbers = numbered({"train": LabelColumn("train.x", labels)})
    except UserError:
        return
    assert [classes[number] for number in numbers["train"]] == [str(label) for label in labels]
    assert set(numbers["train"]) == set(range(len(classes))) and numbers["train"].dtype == np.int64


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_from_1_become_five_classes_and_the_record_says_so(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind, train=[5, 1, 2, 3, 4], dev=[1, 5], test=[2])
    data = load(tmp_path)
    assert data.test
    assert [split.labels.tolist() for split in (data.train, data.val, data.test)] == [
        [4, 0, 1, 2, 3],
        [0, 4],
        [1],
    ]
    assert data.record("data")["data_classes"] == "0: 1, 1: 2, 2: 3, 3: 4, 4: 5"
    write(tmp_path, kind, train=[1, 0], dev=[1, 0], test=[1])
    assert "data_classes" not in load(tmp_path).record("data")
    many = Dataset(data.train, data.val, None, [f"n{number:04}" for number in range(1000)])
    assert many.record("data")["data_classes"].endswith(", 99: n0099, ... of 1000")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_of_a_file_that_no_loss_can_take(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind, train=[0.0, 0.5], dev=[0.0])
    with pytest.raises(UserError, match=rf"train split \({tmp_path}/train\.{kind}, row [12]\) is"):
        load(tmp_path)
    write(tmp_path, kind, train=["a", None, "b"], dev=["a"])
    with pytest.raises(UserError, match=rf"train split \({tmp_path}/train\.{kind}, row 2\) is missing"):
        load(tmp_path)
    write(tmp_path, kind, train=["a", "b"], dev=["a", "c"])
    with pytest.raises(
        UserError, match=rf"'c' in the val split \({tmp_path}/dev\.{kind}, row 2\) is not a class"
    ):
        load(tmp_path)
    write(tmp_path, kind, train=[0, 1], dev=[-1, -1])
    with pytest.raises(UserError, match=rf"the val split \({tmp_path}/dev\.{kind}\) has no labels but -1"):
        load(tmp_path)


def written_by_datasets(folder: Path, names: list[str], **splits: list[int]) -> None:
    """Parquet files as the `datasets` library writes them, numbers with their names beside them."""
    features = hf.Features({"text": hf.Value("string"), "label": hf.ClassLabel(names=names)})
    for split, labels in splits.items():
        columns = {"text": [f"text {row}" for row in range(len(labels))], "label": labels}
        hf.Dataset.from_dict(columns, features).to_parquet(folder / f"{split}.parquet")


def test_numbers_in_parquet_have_the_names_that_are_written_beside_them(tmp_path: Path) -> None:
    names = ["worse", "better", "alike"]
    written_by_datasets(tmp_path, names, train=[2, 0, 1, 0], dev=[1, 2], test=[-1, -1])
    data = load(tmp_path)
    assert (data.classes, data.train.labels.tolist(), data.val.labels.tolist()) == (
        names,
        [2, 0, 1, 0],
        [1, 2],
    )
    assert data.record("data")["data_classes"] == "0: worse, 1: better, 2: alike"
    assert data.unlabelled_test is not None
    written_by_datasets(tmp_path, names, train=[2, 0], dev=[0, 2], test=[2])
    assert (load(tmp_path).classes, load(tmp_path).train.labels.tolist()) == (["worse", "alike"], [1, 0])


def test_numbers_that_mean_another_class_in_another_split_are_refused(tmp_path: Path) -> None:
    written_by_datasets(tmp_path, ["worse", "better"], train=[0, 1])
    written_by_datasets(tmp_path, ["better", "worse"], dev=[0, 1])
    says = r"the numbers of the val split \(.*dev.parquet\) stand for better, worse, and those of train for worse"
    with pytest.raises(UserError, match=says):
        load(tmp_path)


def test_a_number_without_a_name_among_those_that_have_one_is_refused(tmp_path: Path) -> None:
    written_by_datasets(tmp_path, ["worse", "better"], train=[0, 1])
    table = parquet.read_table(tmp_path / "train.parquet")
    parquet.write_table(table.set_column(1, "label", [[0, 2]]).cast(table.schema), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"2 in the train split .* is none of the 2 classes of label"):
        load(tmp_path)
