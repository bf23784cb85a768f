"""Running text without labels, for language modelling, from the hub or from a local folder.

A folder holds {train,validation|dev|val,test}.{txt,csv,tsv,jsonl,json,parquet}: a line of a .txt file is a
sample, other formats have the column that `dataset.text_columns` names. Lines stay as they are.
"""

from typing import Any

import numpy as np

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.tables import FORMATS, column, tables
from pmexp.errors import UserError


def load(config: DatasetConfig) -> Dataset:
    """Splits of 1-tuples of lines and no labels."""
    if len(config.text_columns) != 1:
        raise UserError(f"dataset.text_columns: {config.text_columns} must name one column of lines")
    found = tables(config, ("txt", *FORMATS))
    splits = {name: _lines(config, table) for name, table in found.splits.items()}
    if "val" not in splits:
        raise UserError(
            f"dataset={config.name}: {config.path or config.hub_id} has no validation split; "
            "put validation.txt there"
        )
    return Dataset(splits["train"], splits["val"], splits.get("test"), [], origin=found.origin)


def _lines(config: DatasetConfig, table: Any) -> Split:
    lines = column(config, table, config.text_columns[0], "dataset.text_columns")
    return Split([(line,) for line in lines], np.zeros(0, dtype=np.int64))
