"""Pictures by class: ImageNet from the hub, or a folder in the ImageFolder layout.

A folder holds train/<class>/<picture> and val|validation|dev/<class>/<picture>, and a labelled
test/<class>/<picture> where there is one. Classes are numbered in the order of their names, which for
ImageNet's folders (n01440764, ...) is the usual order.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.pictures import Pictures
from pmexp.datasets.tables import SPLITS, column, tables
from pmexp.errors import UserError

_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")


def load(config: DatasetConfig) -> Dataset:
    """Splits of `Pictures`, none of them decoded yet."""
    splits, classes, origin = _from_folder(config) if config.path else _from_hub(config)
    for name in ("train", "val"):
        if name not in splits:
            raise UserError(
                f"dataset={config.name}: {config.path or config.hub_id} has no {name} split; "
                f"put {name}/<class>/<picture> there"
            )
    return Dataset(splits["train"], splits["val"], splits.get("test"), classes, origin=origin)


def _from_folder(config: DatasetConfig) -> tuple[dict[str, Split], list[str], str]:
    folder = Path(str(config.path)).expanduser()
    places = {
        split: found
        for split, stems in SPLITS.items()
        if (found := [d for s in stems if (d := folder / s).is_dir()])
    }
    for split, found in places.items():
        if len(found) > 1:
            raise UserError(
                f"dataset.path: {found[0]} and {found[1]} both claim to be the {split} split; keep one"
            )
    if "train" not in places:
        raise UserError(f"dataset.path: {folder} has no folder train; put train/<class>/<picture> there")
    classes = sorted(entry.name for entry in os.scandir(places["train"][0]) if entry.is_dir())
    splits = {split: _labelled(found[0], classes) for split, found in places.items()}
    return splits, classes, str(folder)


def _labelled(folder: Path, classes: list[str]) -> Split:
    index = {name: number for number, name in enumerate(classes)}
    files: list[str] = []
    labels: list[int] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir():
            continue
        if entry.name not in index:
            raise UserError(
                f"dataset.path: {entry.path} is a class that train does not have; remove or rename it"
            )
        here = sorted(_pictures(entry.path))
        if not here:
            raise UserError(f"dataset.path: {entry.path} holds no picture ({', '.join(_SUFFIXES)})")
        files += here
        labels += [index[entry.name]] * len(here)
    if not files:
        raise UserError(f"dataset.path: {folder} holds no class; put {folder.name}/<class>/<picture> there")
    return Split(Pictures(files), np.array(labels, dtype=np.int64))


def _pictures(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(_SUFFIXES):
                yield entry.path


def _from_hub(config: DatasetConfig) -> tuple[dict[str, Split], list[str], str]:
    import datasets

    found = tables(config)
    splits = {}
    for name, table in found.splits.items():
        labels = np.array(column(config, table, config.label_column, "dataset.label_column"), dtype=np.int64)
        if (labels >= 0).all():  # ImageNet keeps the labels of test to itself and writes -1
            column(config, table, config.image_column, "dataset.image_column")
            undecoded: Any = table.cast_column(config.image_column, datasets.Image(decode=False))
            splits[name] = Split(Pictures(undecoded[config.image_column]), labels)
    classes = list(found.splits["train"].features[config.label_column].names)
    return splits, classes, found.origin
