"""Pictures with captions come out of folders and hub datasets; what does not fit is one line."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import datasets as hf
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.data import main as data_main
from pmexp.datasets import load
from pmexp.datasets.captioned import CLASSES, Captioned
from pmexp.datasets.pictures import Pictures
from pmexp.errors import UserError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
Rows = list[dict[str, Any]]


def config(folder: Path | None, **options: Any) -> DatasetConfig:
    keys: dict[str, Any] = {"image_column": "file", "text_columns": ["text"], "val_fraction": 0.25}
    path = None if folder is None else str(folder)
    return DatasetConfig(name="pairs", kind=DatasetKind.image_text, path=path, **(keys | options))


def paint(folder: Path, names: str = "red green blue white") -> Rows:
    """Four pictures of one colour each, and a caption for each."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for name in names.split():
        Image.new("RGB", (6, 4), COLOURS[name]).save(folder / "pictures" / f"{name}.png")
        rows.append({"file": f"pictures/{name}.png", "text": f"it is {name}", "more": f"only {name}"})
    return rows


def write(file: Path, rows: Rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def described(captioned: Any) -> set[tuple[str, str]]:
    """The colour of each picture beside its text, by the pixels."""
    assert isinstance(captioned, Captioned)
    names = {colour: name for name, colour in COLOURS.items()}
    pairs = zip(captioned.picture_of.tolist(), captioned.texts, strict=True)
    assert isinstance(captioned.pictures, Pictures)
    return {(names[tuple(captioned.pictures[row][0, 0].tolist())], text) for row, text in pairs}


@pytest.mark.parametrize("layout", ["train.csv", "train.jsonl", "train/metadata.jsonl", "train/metadata.csv"])
def test_a_folder_gives_each_picture_its_captions(tmp_path: Path, layout: str) -> None:
    place = tmp_path / Path(layout).parent
    rows = paint(place)
    write(tmp_path / layout, [*rows, rows[0] | {"text": "again red"}])
    Image.new("RGB", (2, 2)).save(place / "pictures" / "unnamed.png")
    data = load(config(tmp_path, text_columns=["text", "more"], val_fraction=0.5))
    assert (data.classes, data.test) == (CLASSES, None)
    both = described(data.train.inputs) | described(data.val.inputs)
    assert both == {
        *((name, f"{said} {name}") for name in COLOURS for said in ("it is", "only")),
        ("red", "again red"),
    }
    colours = [{colour for colour, _ in described(split.inputs)} for split in (data.train, data.val)]
    assert not colours[0] & colours[1] and len(colours[0]) == len(colours[1]) == 2
    assert data.left_out.startswith("left out 1: ") and data.left_out.endswith("unnamed.png")
    assert data.train.labels.tolist() == [1, 0] * (len(data.train) // 2)
    write(tmp_path / layout, rows)
    assert load(config(tmp_path, text_columns=["text"], val_fraction=0.5)).digest != data.digest


def test_the_splits_that_are_there_are_taken(tmp_path: Path) -> None:
    rows = paint(tmp_path)
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.csv", rows[:2])
    data = load(config(tmp_path))
    assert data.test is not None
    assert described(data.val.inputs) == described(data.test.inputs) == {
        ("red", "it is red"), ("green", "it is green"),
    }  # fmt: skip
    before = data.digest
    Image.new("RGB", (6, 4), (1, 1, 1)).save(tmp_path / "pictures" / "red.png")
    assert load(config(tmp_path)).digest != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "pictures/none.png"}, "is not there; put the picture at"),
        ({"file": "/etc/passwd"}, "'/etc/passwd' lies outside of the table's folder"),
        ({"file": "../red.png"}, "'../red.png' lies outside of the table's folder"),
        ({"file": "pictures"}, "is not there; put the picture at"),
        ({"file": ""}, "'' is no file's name"),
        ({"file": 3}, "3 is no file's name"),
        ({"file": None}, "None is no file's name"),
        ({"text": None}, "is missing; write text there"),
    ],
)
def test_a_row_that_names_no_picture_is_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = paint(tmp_path)
    write(tmp_path / "train.jsonl", [rows[0], rows[1] | change, *rows[2:]])
    with pytest.raises(UserError) as error:
        load(config(tmp_path))
    assert said in str(error.value) and "row 2" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ({"train.csv": 4, "train/metadata.csv": 4}, {}, "both claim to be the train split"),
        ({"dev.csv": 4}, {}, "has no train split"),
        ({"train.csv": 4}, {"image_column": "picture"}, "'picture' is not a column of the train split"),
        ({"train.csv": 4}, {"text_columns": []}, "names no column of captions"),
        ({"train.csv": 4}, {"text_columns": ["caption"]}, "'caption' is not a column"),
        ({"train.csv": 1}, {}, "1 sample cannot be split by 0.25"),
        (
            {"train.csv": 4, "dev.csv": 1},
            {},
            "the val split has no text of another picture beside 'it is red'",
        ),
    ],
)
def test_tables_that_do_not_fit_are_one_line(
    tmp_path: Path, files: dict[str, int], options: dict[str, Any], said: str
) -> None:
    rows = paint(tmp_path)
    for name, count in files.items():
        write(tmp_path / name, rows[:count])
    with pytest.raises(UserError) as error:
        load(config(tmp_path, **options))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_hub_dataset_gives_its_pictures_undecoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = paint(tmp_path)
    columns = {
        "image": [str(tmp_path / row["file"]) for row in rows],
        "caption_0": [row["text"] for row in rows],
        "caption_1": [row["more"] for row in rows],
    }
    table = hf.Dataset.from_dict(columns).cast_column("image", hf.Image())
    table.save_to_disk(str(tmp_path / "c0ffee"))
    splits = {split: hf.load_from_disk(str(tmp_path / "c0ffee")) for split in ("train", "validation")}
    monkeypatch.setattr(hf, "load_dataset", lambda *_, **__: splits)
    options = {"image_column": "image", "text_columns": ["caption_0", "caption_1"]}
    data = load(config(None, hub_id="someone/pairs", **options))
    assert described(data.train.inputs) == {
        (name, f"{said} {name}") for name in COLOURS for said in ("it is", "only")
    }
    assert data.digest == "commit:c0ffee"


@st.composite
def captioned(draw: st.DrawFn) -> Captioned:
    of_text = draw(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), min_size=1, max_size=8))
    pictures = np.zeros((4, 1, 2, 2), np.float32)
    return Captioned(pictures, [text for _, text in of_text], np.array([picture for picture, _ in of_text]))


@settings(max_examples=60, deadline=None)
@given(captioned(), st.integers(0, 2**32 - 1))
def test_the_text_of_another_picture_never_describes_this_one(pairs: Captioned, seed: int) -> None:
    for row, (picture, text) in enumerate(zip(pairs.picture_of.tolist(), pairs.texts, strict=True)):
        others = {
            other
            for other in range(len(pairs.texts))
            if pairs.texts[other] != text and pairs.picture_of[other] != picture
        }
        if not others:
            with pytest.raises(UserError, match="no text of another picture"):
                pairs.check("here")
            return
        assert pairs.drawn(row, np.random.default_rng(seed)) in others
    pairs.check("here")


def test_the_data_command_reads_the_ends_of_each_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train.csv", paint(tmp_path))
    arguments = ["dataset=flickr8k", f"dataset.path={tmp_path}", "dataset.image_column=file"]
    arguments += ["dataset.text_columns=[text]", "dataset.val_fraction=0.5"]
    assert data_main(arguments) == 0
    assert "train: 4 samples" in capsys.readouterr().out
    for name in ("red", "green", "blue"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(b"no picture")
    assert data_main(arguments) == 2
    assert "cannot be decoded" in capsys.readouterr().err
