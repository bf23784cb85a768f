"""Loads pictures by class: ImageNet from the hub, or a folder in the ImageFolder layout.

A folder holds train/<class>/<picture> and val|valid|validation|dev/<class>/<picture>, and a labelled
test/<class>/<picture> where there is one; pictures may lie deeper below their class. Classes are numbered
in the order of their names as texts ("10" before "2"), which for ImageNet's folders (n01440764, ...) is the
usual order. The order and what was left out are in the run's record.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.picture_folder import classes_of, named_and_counted, pictures_of
from pmexp.datasets.pictures import Pictures
from pmexp.datasets.tables import SPLITS, column, tables
from pmexp.errors import UserError, first_line

log = logging.getLogger(__name__)

_NAMED = 100  # the most classes that a note names
_UNLABELLED = -1


def load(config: DatasetConfig) -> Dataset:
    """Splits of `Pictures`, none of them decoded yet. Raises UserError where they cannot be had."""
    try:
        return _from_folder(config) if config.path else _from_hub(config)
    except OSError as error:
        raise UserError(
            f"dataset.path: {error.filename} cannot be read ({error.strerror}); make it readable"
        ) from None


def _dataset(
    config: DatasetConfig,
    splits: Mapping[str, Split],
    classes: list[str],
    origin: str,
    digest: str = "",
    left_out: str = "",
) -> Dataset:
    """The dataset of the splits. Raises UserError where train or val is missing."""
    for name in ("train", "val"):
        if name not in splits:
            raise UserError(
                f"dataset={config.name}: {config.path or config.hub_id} has no {name} split; "
                f"put {name}/<class>/<picture> there"
            )
    train, val, test = splits["train"], splits["val"], splits.get("test")
    return Dataset(train, val, test, classes, None, origin, digest, left_out)


def _from_folder(config: DatasetConfig) -> Dataset:
    folder = Path(str(config.path)).expanduser()
    places = {
        split: folders
        for split, stems in SPLITS.items()
        if (folders := [d for s in stems if (d := folder / s).is_dir()])
    }
    for split, folders in places.items():
        if len(folders) > 1:
            raise UserError(
                f"dataset.path: {folders[0]} and {folders[1]} both claim to be the {split} split; keep one"
            )
    if "train" not in places:
        raise UserError(f"dataset.path: {folder} has no folder train; put train/<class>/<picture> there")
    taken = {folders[0].name for folders in places.values()}
    left_out = sorted(entry.path for entry in os.scandir(folder) if entry.name not in taken)
    classes, _ = classes_of(places["train"][0])
    notices = []
    splits = {}
    deeper: list[str] = []
    for split, folders in places.items():
        splits[split], notes = _labelled(folders[0], classes)
        left_out += notes.left_out
        deeper += notes.deeper
        if notes.missing:
            notices.append(f"no {split} pictures of {', '.join(notes.missing[:_NAMED])}")
    if deeper:
        notices.append(f"folders below a class, taken as of that class, {named_and_counted(deeper, folder)}")
    if left_out:
        notices.append(f"left out {named_and_counted(left_out, folder)}")
    if notices:
        log.warning("dataset.path: %s: %s", folder, "; ".join(notices))
    return _dataset(config, splits, classes, str(folder), left_out="; ".join(notices))


@dataclass
class _Notes:
    """Collects what a warning says of a split."""

    left_out: list[str]  # paths
    deeper: list[str] = field(default_factory=list)  # paths of folders with pictures, below a class folder
    missing: list[str] = field(default_factory=list)  # classes of train that it has no picture of


def _labelled(folder: Path, classes: list[str]) -> tuple[Split, _Notes]:
    index = {name: number for number, name in enumerate(classes)}
    files: list[str] = []
    labels: list[int] = []
    here, others = classes_of(folder)
    notes = _Notes(others, missing=[name for name in classes if name not in here])
    for name in here:
        if name not in index:
            raise UserError(
                f"dataset.path: {folder / name} is a class that train does not have; remove or rename it"
            )
        of_class = pictures_of(folder / name)
        notes.left_out += of_class.left_out
        notes.deeper += of_class.deeper(folder / name)
        files += of_class.pictures
        labels += [index[name]] * len(of_class.pictures)
    if not files:
        raise UserError(f"dataset.path: {folder} holds no class; put {folder.name}/<class>/<picture> there")
    return Split(Pictures(files), np.array(labels, dtype=np.int64)), notes


def _from_hub(config: DatasetConfig) -> Dataset:
    import datasets

    loaded = tables(config)
    splits = {}
    for name, table in loaded.splits.items():
        labels = column(config, table, config.label_column, "dataset.label_column")
        column(config, table, config.image_column, "dataset.image_column")
        if not isinstance(table.features[config.label_column], datasets.ClassLabel):
            raise UserError(
                f"dataset.label_column: {config.label_column!r} of {config.hub_id} names no classes; "
                "choose another column, or put the pictures in folders and set dataset.path"
            )
        numbers = np.array([_UNLABELLED if label is None else label for label in labels], dtype=np.int64)
        unlabelled = numbers == _UNLABELLED
        if name == "test" and unlabelled.all():  # ImageNet keeps the labels of test to itself
            continue
        if unlabelled.any():
            raise UserError(
                f"dataset={config.name}: row {int(unlabelled.argmax())} of the {name} split of "
                f"{config.hub_id} has no label; choose another dataset or revision"
            )
        splits[name] = Split(Pictures(undecoded(config, table)[config.image_column]), numbers)
    classes = list(loaded.splits["train"].features[config.label_column].names)
    return _dataset(config, splits, classes, loaded.origin, loaded.digest, loaded.left_out)


def undecoded(config: DatasetConfig, table: Any) -> Any:
    """A split of a hub dataset whose pictures are not decoded. Raises UserError where it has none."""
    import datasets

    try:
        return table.cast_column(config.image_column, datasets.Image(decode=False))
    except Exception as error:
        raise UserError(
            f"dataset.image_column: {config.image_column!r} of {config.hub_id} holds no pictures "
            f"({first_line(error)}); choose another column"
        ) from None
