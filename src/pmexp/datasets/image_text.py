"""Loads pictures with captions, from the Hugging Face hub or from a local folder of pictures and tables.

A folder holds {train,validation|valid|dev|val,test}.{csv,tsv,jsonl,json,parquet}, or as `datasets` has it
train/metadata.csv and so on. A row names a picture, by `dataset.image_column` and relative to its table, and
its captions, by `dataset.text_columns`; rows of one picture are captions of it. Without validation some of
train's pictures are carved off, with all of their captions.
"""

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split, carved_rows
from pmexp.datasets.captioned import CLASSES, Captioned
from pmexp.datasets.files import FORMATS
from pmexp.datasets.imagenet import undecoded
from pmexp.datasets.picture_folder import named_and_counted, pictures_of
from pmexp.datasets.pictures import Pictures
from pmexp.datasets.tables import SPLITS, Tables, column, folder_of, split_files, tables, texts
from pmexp.errors import UserError

log = logging.getLogger(__name__)

_METADATA = "metadata"


@dataclass(frozen=True)
class _Rows:
    """The captions of one split, each beside its picture."""

    pictures: Pictures
    texts: list[str]
    picture_of: NDArray[np.int64]  # (texts,)

    def split(self, pictures: NDArray[np.int64], place: str) -> Split:
        """Returns the samples of some of the pictures, by their sorted rows. Raises UserError."""
        kept = np.flatnonzero(np.isin(self.picture_of, pictures))
        captioned = Captioned(
            self.pictures.take(pictures),
            [self.texts[row] for row in kept],
            np.searchsorted(pictures, self.picture_of[kept]),
        )
        captioned.check(place)
        return Split(captioned, captioned.labels)


def load(config: DatasetConfig) -> Dataset:
    """Splits of `Captioned`, no picture decoded yet. Raises UserError where they cannot be had."""
    if not config.text_columns:
        raise UserError("dataset.text_columns: [] names no column of captions; name one or more")
    loaded = tables(config, files=table_files)
    rows = {split: _rows(config, loaded, split) for split in loaded.splits}
    whole = {split: np.arange(len(of_it.pictures)) for split, of_it in rows.items()}
    train = rows["train"]
    if "val" not in rows:
        alike = np.zeros(len(train.pictures), dtype=np.int64)
        whole["train"], whole["val"] = carved_rows(alike, config.val_fraction, "dataset.val_fraction")
    splits = {
        split: rows.get(split, train).split(pictures, f"the {split} split")
        for split, pictures in whole.items()
    }
    left_out = _left_out(config, loaded, rows)
    if left_out:
        log.warning("dataset.path: %s: %s", loaded.origin, left_out)
    return Dataset(
        splits["train"],
        splits["val"],
        splits.get("test"),
        CLASSES,
        None,
        loaded.origin,
        loaded.digest,
        left_out,
    )


def table_files(folder: Path) -> dict[str, Path]:
    """Returns the table of each split that is there. Raises UserError where two are of one split."""
    chosen = split_files(folder, FORMATS)
    for split, stems in SPLITS.items():
        for file in (folder / stem / f"{_METADATA}.{kind}" for stem in stems for kind in FORMATS):
            if file.is_file() and chosen.setdefault(split, file) != file:
                raise UserError(
                    f"dataset.path: {chosen[split]} and {file} both claim to be the {split} split; keep one"
                )
    return chosen


def _rows(config: DatasetConfig, loaded: Tables, split: str) -> _Rows:
    captions = [texts(config, loaded, split, name) for name in config.text_columns]
    table, place = loaded.splits[split], loaded.places[split]
    cells = column(config, table, config.image_column, "dataset.image_column", place)
    if config.path:
        files = [_file(Path(place), cell, row) for row, cell in enumerate(cells, start=1)]
        names = {name: number for number, name in enumerate(dict.fromkeys(files))}
        pictures, of_row = Pictures(list(names)), np.array([names[name] for name in files], dtype=np.int64)
    else:
        pictures = Pictures(undecoded(config, table)[config.image_column])
        of_row = np.arange(len(table))
    of_text = np.repeat(of_row, len(captions))
    return _Rows(pictures, [text for of_one in zip(*captions, strict=True) for text in of_one], of_text)


def _file(table: Path, cell: object, row: int) -> str:
    """Returns the path of the picture that a cell names. Raises UserError where it is none in the folder."""
    named = f"dataset.image_column: {table}, row {row}: {cell!r}"
    if not isinstance(cell, str) or not cell:
        raise UserError(f"{named} is no file's name; write the picture's, relative to the table")
    if PurePosixPath(cell).is_absolute() or ".." in PurePosixPath(cell).parts or "\0" in cell:
        raise UserError(f"{named} lies outside of the table's folder; put the picture below it")
    file = table.parent / cell
    if not file.is_file():
        raise UserError(f"{named} is not there; put the picture at {file}, or leave the row out")
    return str(file)


def _left_out(config: DatasetConfig, loaded: Tables, rows: dict[str, _Rows]) -> str:
    """Says which files of the folder no table names; what the hub's loader left out for a hub dataset."""
    if not config.path:
        return loaded.left_out
    folder = folder_of(config.path)
    taken = {*loaded.places.values(), *(file for of_it in rows.values() for file in of_it.pictures.files())}
    below = pictures_of(folder)
    rest = sorted({*below.pictures, *below.left_out} - taken)
    return f"left out {named_and_counted(rest, folder)}" if rest else ""
