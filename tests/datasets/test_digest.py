"""Digests of data files: on record, the same for the same content, and never silently another."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from disturbances import when_training
from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind
from pmexp.datasets.base import Dataset
from pmexp.datasets.digest import digest_of_data
from pmexp.errors import UserError
from small_runs import TINY_BERT, Runs

TINY = [
    *TINY_BERT,
    "dataset=sst2",
    "dataset.text_columns=[text]",
    "dataset.max_length=8",
    "train.batch_size=8",
    "tracking=off",
    "variant=pm-drop",
]


def write(folder: Path, word: str) -> Path:
    """Files of one size and one time, whatever the word of five letters."""
    folder.mkdir(exist_ok=True)
    for stem in ("train", "dev", "test"):
        file = folder / f"{stem}.csv"
        file.write_text("text,label\n" + "".join(f"{word} {row:02},{row % 2}\n" for row in range(16)))
        os.utime(file, (1e9, 1e9))
    return folder


def sha256sum(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def config(folder: Path, kind: DatasetKind = DatasetKind.text) -> DatasetConfig:
    return DatasetConfig(name="set", kind=kind, path=str(folder), text_columns=["text"])


def test_the_digest_is_of_the_content_of_the_files_that_are_read(tmp_path: Path) -> None:
    write(tmp_path, "alpha")
    lines = [
        f"{sha256sum((tmp_path / name).read_bytes())}  {name}\n"
        for name in ("dev.csv", "test.csv", "train.csv")
    ]
    digest = "sha256:" + sha256sum("".join(lines))
    assert digest_of_data(config(tmp_path)) == datasets.load(config(tmp_path)).digest == digest
    (tmp_path / "notes.txt").write_text("read by nobody")
    copy = shutil.copytree(tmp_path, tmp_path / "copy")
    assert digest_of_data(config(copy)) == digest
    write(tmp_path, "gamma")
    assert digest_of_data(config(tmp_path)) != digest
    assert digest_of_data(config(tmp_path / "nowhere")) == ""


def test_fetched_and_generated_data_has_a_digest_too(few_news: str) -> None:
    folder = few_news.removeprefix("dataset.path=")
    news = DatasetConfig(name="r8", kind=DatasetKind.reuters_r8, path=folder, text_columns=["text"])
    assert datasets.load(news).digest == digest_of_data(news)
    fetched = datasets.load(DatasetConfig(name="r8", kind=DatasetKind.reuters_r8, text_columns=["text"]))
    assert fetched.digest.startswith("sha256:") and fetched.digest != digest_of_data(news)
    digits = datasets.load(DatasetConfig(name="digits", kind=DatasetKind.digits))
    assert digits.record("data") == {"data": "scikit-learn"}


@pytest.mark.parametrize(("read_at_most", "kind"), [(2**30, "sha256:"), (1, "names-and-sizes:")])
def test_pictures_are_known_by_content_as_far_as_that_is_quick(
    read_at_most: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmexp.datasets.digest.READ_AT_MOST", read_at_most)
    pictures, changed = config(tmp_path, DatasetKind.imagenet), tmp_path / "train/a/deep/2.png"
    for name in ("train/a/1.png", "train/a/deep/2.png", "val/a/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    digests = [digest_of_data(pictures)]
    assert digests[0].startswith(kind)
    changed.write_bytes(b"54321")
    digests.append(digest_of_data(pictures))
    changed.write_bytes(b"123456")
    digests.append(digest_of_data(pictures))
    changed.rename(tmp_path / "train/a/2.png")
    digests.append(digest_of_data(pictures))
    assert len(set(digests)) == (4 if kind == "sha256:" else 3)


def test_a_changed_file_under_a_finished_run_is_said(runs: Runs, tmp_path: Path) -> None:
    data = write(tmp_path / "data", "alpha")
    (data / "extra.csv").write_text("")
    command = [*TINY, f"dataset.path={data}", "train.epochs=1"]
    assert runs.train(*command)[0] == 0
    (folder,) = runs.run_folders()
    recorded = runs.summaries()["pm-drop-s0"]["environment"]
    before = datasets.load(config(data)).digest
    assert (recorded["data"], recorded["data_digest"]) == (str(data), before)
    assert recorded["data_left_out"].startswith("left out 1 of the 4 entries")
    assert json.loads((folder / "attempts.jsonl").read_text())["data"]["data_digest"] == before

    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    write(data, "gamma")
    for arguments in (command, ["-m", *command], ["-m", *command, "seed=0,1"]):
        code, _, err = runs.train(*arguments)
        assert code == 2 and err.startswith(
            f"error: dataset.path={data}: its data has changed since {folder} was made"
        )
        assert before in err and digest_of_data(config(data)) in err and err.count("\n") == 1
    assert "(1 of 2 runs)" in err and runs.run_folders() == [folder]
    assert kept == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    write(data, "alpha")
    code, out, _ = runs.train(*command)
    assert code == 0 and str(folder) in out and len((folder / "attempts.jsonl").read_text().splitlines()) == 1
    shutil.rmtree(data)
    assert runs.train(*command)[0] == 0  # nothing there says that it has changed


def test_a_run_does_not_go_on_from_a_checkpoint_of_other_data(runs: Runs, tmp_path: Path) -> None:
    data = write(tmp_path / "data", "alpha")
    command = [*TINY, f"dataset.path={data}", "train.epochs=40", "checkpoint.every_s=0"]
    with when_training(runs, "pm-drop-s0", signal.SIGINT, to_driver=True, with_checkpoint=True):
        assert runs.train(*command)[0] == 130
    (folder,) = runs.run_folders()
    write(data, "gamma")
    for arguments in (command, ["-m", *command]):
        code, _, err = runs.train(*arguments)
        assert code == 2 and f"its data has changed since {folder} was made of it" in err, err
    assert json.loads((folder / "failure.json").read_text())["status"] == "interrupted"
    write(data, "alpha")
    assert runs.train(*command)[0] == 0
    starts = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert [start["resumed_at"] > 0 for start in starts] == [False, True]


class TestHub:
    """What the library would give of a hub dataset: the hub itself cannot be had here."""

    def load(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        commit: str,
        rows: dict[str, object],
        **splits: str,
    ) -> Dataset:
        import datasets as hf

        by_split = {}
        for split in splits or {"train": "", "validation": "", "test": ""}:
            place = folder / commit
            place.mkdir(parents=True, exist_ok=True)
            hf.Dataset.from_dict(rows).to_parquet(place / f"{split}.parquet")
            made = hf.Dataset.from_dict(rows, split=split)
            made.save_to_disk(place / split)
            kept = hf.load_from_disk(place / split)
            for cached in (place / split).glob("data-*.arrow"):
                shutil.copy(cached, place / f"{split}.arrow")
            by_split[split] = hf.Dataset.from_file(str(place / f"{split}.arrow"), split=kept.split)
        monkeypatch.setattr(hf, "load_dataset", lambda *_, **__: by_split)
        return datasets.load(
            DatasetConfig(name="set", kind=DatasetKind.text, hub_id="a/b", text_columns=["text"])
        )

    ROWS = {"text": ["a", "b"] * 4, "label": [0, 1] * 4}  # noqa: RUF012

    def test_the_commit_is_the_digest_and_splits_are_left_out_with_a_word(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        splits = dict.fromkeys(("train", "validation", "test", "unsupervised"), "")
        data = self.load(tmp_path, monkeypatch, "c0ffee", self.ROWS, **splits)
        assert data.digest == "commit:c0ffee"
        assert data.left_out == (
            "left out 1 of the 4 splits of hub a/b: unsupervised (those are taken that are named train, "
            "validation|valid|dev|val, test)"
        )
        with pytest.raises(
            UserError, match="validation and dev of hub dataset a/b both claim to be the val split"
        ):
            self.load(tmp_path, monkeypatch, "c0ffee", self.ROWS, train="", dev="", validation="")

    def test_what_is_missing_is_named_by_split_and_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(UserError, match=r"text in the train split \(hub a/b, row 2\) is missing"):
            self.load(tmp_path, monkeypatch, "c0ffee", {"text": ["a", None], "label": [0, 1]})
        with pytest.raises(UserError, match=r"None in the train split \(hub a/b, row 2\) is missing"):
            self.load(tmp_path, monkeypatch, "c0ffee", {"text": ["a", "b"], "label": [0, None]})

    def test_a_folder_of_the_same_name_is_not_taken_for_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        pd.DataFrame(self.ROWS).to_csv(write(tmp_path / "a", "alpha") / "b")
        with pytest.raises(UserError, match=r"dataset\.hub_id: a/b is also a file or folder here"):
            self.load(tmp_path / "hub", monkeypatch, "c0ffee", self.ROWS)

    @pytest.mark.parametrize("hub_id", ["csv", "/a/b", "~/a", "hf://datasets/a/b", "a/b/c", "a/*"])
    def test_a_format_or_a_path_is_no_hub_dataset(self, hub_id: str) -> None:
        """The library would take csv for the format, and read what lies in the working folder."""
        with pytest.raises(UserError, match=r"^dataset\.hub_id: .* is no id such as owner/name"):
            DatasetConfig(name="set", kind=DatasetKind.text, hub_id=hub_id, text_columns=["text"])

    def test_the_innermost_reason_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets as hf

        def fail(*_: object, **__: object) -> None:
            try:
                b"\xe9".decode()
            except UnicodeDecodeError as error:
                raise RuntimeError("An error occurred while generating the dataset") from error

        monkeypatch.setattr(hf, "load_dataset", fail)
        with pytest.raises(UserError, match=r"cannot be had \(.*'utf-8' codec can't decode byte 0xe9"):
            datasets.load(
                DatasetConfig(name="set", kind=DatasetKind.text, hub_id="a/b", text_columns=["text"])
            )
