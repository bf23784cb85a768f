"""Loads running text without labels, for language modelling, from the hub or from a local folder.

A folder holds {train,validation|valid|dev|val,test}.{txt,csv,tsv,jsonl,json,parquet}: a line of .txt is a
sample, other formats have the column that `dataset.text_columns` names. Lines stay as they are.
"""

import numpy as np

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.files import FORMATS
from pmexp.datasets.tables import Tables, tables, texts
from pmexp.errors import UserError

LINE_FORMATS = ("txt", *FORMATS)


def load(config: DatasetConfig) -> Dataset:
    """Splits of 1-tuples of lines and no labels."""
    if len(config.text_columns) != 1:
        raise UserError(f"dataset.text_columns: {config.text_columns} must name one column of lines")
    loaded = tables(config, LINE_FORMATS, empty_cell="")
    splits = {split: _lines(config, loaded, split) for split in loaded.splits}
    if "val" not in splits:
        raise UserError(
            f"dataset={config.name}: {config.path or config.hub_id} has no validation split; "
            "put validation.txt there"
        )
    return loaded.dataset(config, splits, [])


def _lines(config: DatasetConfig, loaded: Tables, split: str) -> Split:
    lines = texts(config, loaded, split, config.text_columns[0])
    return Split([(line,) for line in lines], np.zeros(0, dtype=np.int64))
