"""Labelled texts or pairs of texts, from the Hugging Face hub or from a local folder of files.

A folder holds {train,validation|dev|val,test}.{csv,tsv,jsonl,json,parquet} with the columns that
`dataset.text_columns` and `dataset.label_column` name. Labels are class names or numbers from 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split, carve
from pmexp.datasets.tables import column, tables
from pmexp.errors import UserError


def load(config: DatasetConfig) -> Dataset:
    found = tables(config)
    raw = {split: _labels(config, table) for split, table in found.splits.items()}
    named = any(isinstance(value, str) for values in raw.values() for value in values)
    classes = (
        sorted({str(v) for v in raw["train"]})
        if named
        else [str(i) for i in range(max(map(int, raw["train"])) + 1)]
    )
    splits = {
        s: Split(_texts(config, table), _numbers(config, s, raw[s], classes, named))
        for s, table in found.splits.items()
    }
    # GLUE keeps the labels of test to itself and writes -1.
    unlabelled = {s: splits.pop(s) for s in ("val", "test") if s in splits and (splits[s].labels < 0).all()}
    train = splits["train"]
    if "val" in splits:
        val = splits["val"]
    else:
        train, val = carve(train, config.val_fraction, "dataset.val_fraction")
    return Dataset(train, val, splits.get("test"), classes, unlabelled.get("test"), found.origin)


def _texts(config: DatasetConfig, table: Any) -> list[tuple[str, ...]]:
    columns = [column(config, table, name, "dataset.text_columns") for name in config.text_columns]
    return [tuple(str(value) for value in row) for row in zip(*columns, strict=True)]


def _labels(config: DatasetConfig, table: Any) -> list[int | str]:
    if config.label_column not in table.column_names and "test" in str(table.split):
        return [-1] * len(table)
    return list(column(config, table, config.label_column, "dataset.label_column"))


def _numbers(
    config: DatasetConfig, split: str, values: list[int | str], classes: list[str], named: bool
) -> NDArray[np.int64]:
    index: dict[Any, int] = {name: i for i, name in enumerate(classes)}
    index |= {} if named else {i: i for i in range(len(classes))}
    index[-1] = -1
    unknown = [value for value in values if value not in index]
    if unknown or (split == "train" and -1 in values):
        raise UserError(
            f"dataset.label_column: {unknown[0] if unknown else -1!r} in the {split} split of "
            f"dataset={config.name} is not a class of the train split: {', '.join(classes[:20])}"
        )
    return np.array([index[value] for value in values], dtype=np.int64)
