"""Labelled texts or pairs of texts, from the Hugging Face hub or from a local folder of files.

A folder holds {train,validation|dev|val,test}.{csv,tsv,jsonl,json,parquet} with the columns that
`dataset.text_columns` and `dataset.label_column` name. Labels are class names or numbers from 0.
"""

import csv
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split, carve
from pmexp.errors import UserError, first_line

_SPLITS = {"train": ("train",), "val": ("validation", "dev", "val"), "test": ("test",)}
_LONGEST_REASON = 160  # characters of another library's message
_FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")


def load(config: DatasetConfig) -> Dataset:
    tables = _from_folder(config, Path(config.path).expanduser()) if config.path else _from_hub(config)
    if "train" not in tables:
        where = config.path or config.hub_id
        raise UserError(
            f"dataset={config.name}: {where} has no train split; put train.csv (or another of "
            f"{', '.join(_FORMATS)}) there"
        )
    raw = {split: _labels(config, table) for split, table in tables.items()}
    named = any(isinstance(value, str) for values in raw.values() for value in values)
    classes = (
        sorted({str(v) for v in raw["train"]})
        if named
        else [str(i) for i in range(max(map(int, raw["train"])) + 1)]
    )
    splits = {
        s: Split(_texts(config, tables[s]), _numbers(config, s, raw[s], classes, named)) for s in tables
    }
    for name in [s for s in ("val", "test") if s in splits and (splits[s].labels < 0).all()]:
        del splits[name]  # GLUE keeps these labels to itself and writes -1
    train = splits["train"]
    if "val" in splits:
        val = splits["val"]
    else:
        train, val = carve(train, config.val_fraction, "dataset.val_fraction")
    return Dataset(train, val, splits.get("test"), classes)


def _from_folder(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(
            f"dataset.path: {folder} is not a folder; put train.csv, validation.csv and test.csv "
            f"(or {', '.join(_FORMATS[1:])}) there"
        )
    import datasets

    tables = {}
    for split, stems in _SPLITS.items():
        files = [f for stem in stems for kind in _FORMATS if (f := folder / f"{stem}.{kind}").is_file()]
        if len(files) > 1:
            raise UserError(
                f"dataset.path: {files[0]} and {files[1]} both claim to be the {split} split; keep one"
            )
        if files:
            kind = files[0].suffix[1:]
            options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {}
            builder = {"tsv": "csv", "jsonl": "json"}.get(kind, kind)
            try:
                tables[split] = datasets.load_dataset(
                    builder, data_files={split: str(files[0])}, split=split, **options
                )
            except Exception as error:
                raise UserError(
                    f"dataset.path: {files[0]} cannot be read as {kind} ({_reason(error)})"
                ) from None
    return tables


def _from_hub(config: DatasetConfig) -> dict[str, Any]:
    if not config.hub_id:
        raise UserError(f"dataset.path: dataset={config.name} has no hub_id; set dataset.path=<folder>")
    import datasets

    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # its retries say nothing more than the error
    try:
        found = datasets.load_dataset(config.hub_id, config.hub_config, revision=config.revision)
    except Exception as error:
        offline = " (offline mode is on)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UserError(
            f"dataset={config.name}: hub dataset {config.hub_id} cannot be had{offline} ({_reason(error)}); "
            "fetch it on a machine with network, save each split as train, validation and test "
            f"({', '.join(_FORMATS)}) in one folder and set dataset.path=<folder>"
        ) from None
    return {split: found[stem] for split, stems in _SPLITS.items() for stem in stems if stem in found}


def _texts(config: DatasetConfig, table: Any) -> list[tuple[str, ...]]:
    columns = [_column(config, table, name, "dataset.text_columns") for name in config.text_columns]
    return [tuple(str(value) for value in row) for row in zip(*columns, strict=True)]


def _labels(config: DatasetConfig, table: Any) -> list[int | str]:
    if config.label_column not in table.column_names and "test" in str(table.split):
        return [-1] * len(table)
    return list(_column(config, table, config.label_column, "dataset.label_column"))


def _column(config: DatasetConfig, table: Any, name: str, key: str) -> Any:
    if name not in table.column_names:
        raise UserError(
            f"{key}: {name!r} is not a column of the {table.split} split of dataset={config.name}; "
            f"it has {', '.join(table.column_names)}"
        )
    return table[name]


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


def _reason(error: Exception) -> str:
    return first_line(error)[:_LONGEST_REASON]
