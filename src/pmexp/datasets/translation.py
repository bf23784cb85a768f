"""Loads pairs of a source and its target, from the Hugging Face hub or from a local folder of files.

A folder holds {train,validation|valid|dev|val,test}.{csv,tsv,jsonl,json,parquet}. `dataset.text_columns`
names the column of the sources and that of the targets; `translation.en` is the text under `en` of the
mappings in the column `translation`, as the hub's sets have it.
"""

import numpy as np

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.tables import tables, texts
from pmexp.errors import UserError


def load(config: DatasetConfig) -> Dataset:
    """Returns the pairs of texts that the configuration names. Raises UserError where they cannot be had."""
    if len(config.text_columns) != 2:
        raise UserError(
            f"dataset.text_columns: {config.text_columns} must name two columns: that of the sources and "
            "that of the targets"
        )
    loaded = tables(config)
    splits = {
        split: pairs_of(*(texts(config, loaded, split, name) for name in config.text_columns))
        for split in loaded.splits
    }
    return loaded.dataset(config, splits, [])


def pairs_of(sources: list[str], targets: list[str]) -> Split:
    """A split of (source, target) without labels."""
    return Split(list(zip(sources, targets, strict=True)), np.zeros(0, dtype=np.int64))
