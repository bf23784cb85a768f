"""Loads sentences whose words have tags, from the Hugging Face hub or from a local folder of files.

A folder holds {train,validation|valid|dev|val,test}.{csv,tsv,jsonl,json,parquet}. `dataset.text_columns`
names the column of the words and `dataset.label_column` that of their tags. A cell is a list, or a text whose
words are apart by blanks. Tags are names, or numbers whose names the `datasets` library has kept beside them.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.labels import LabelColumn, is_unicode, numbered
from pmexp.datasets.tables import Tables, class_names, column, tables
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.errors import UserError
from pmexp.shown import counted

_WORDS, _TAGS = "dataset.text_columns", "dataset.label_column"


def load(config: DatasetConfig) -> Dataset:
    """Splits of TaggedWords. Raises UserError, with file and row, where words and tags do not fit."""
    if len(config.text_columns) != 1:
        raise UserError(f"{_WORDS}: {config.text_columns} must name one column, that of the words")
    loaded = tables(config)
    words = {split: _cells(config, loaded, split, config.text_columns[0], _WORDS) for split in loaded.splits}
    tags = {split: _cells(config, loaded, split, config.label_column, _TAGS) for split in loaded.splits}
    for split, place in loaded.places.items():
        _check_rows(words[split], tags[split], split, place)
    # Tags of all words in a row; a place says in which row of the file, which only sentences have.
    flat = {split: list(chain.from_iterable(tags[split])) for split in tags}
    classes, numbers = numbered(
        {split: LabelColumn(f"{loaded.places[split]}, words counted", flat[split]) for split in tags},
        (),
        config.case_sensitive_labels,
    )
    splits = {}
    for split, sentences in words.items():
        ends = np.cumsum([len(sentence) for sentence in sentences])[:-1]
        tagged = TaggedWords([tuple(sentence) for sentence in sentences], np.split(numbers[split], ends))
        splits[split] = Split(tagged, tagged.labels)
    return loaded.dataset(config, splits, classes)


def _cells(config: DatasetConfig, loaded: Tables, split: str, name: str, key: str) -> list[list[Any]]:
    """Returns the words or tags of each sentence."""
    table, place = loaded.splits[split], loaded.places[split]
    names = class_names(table, name)
    rows = []
    for row, cell in enumerate(column(config, table, name, key, place)[:], start=1):
        items: Any = cell.split() if isinstance(cell, str) else cell
        if not isinstance(items, Sequence) or not items:
            raise UserError(
                f"{key}: {name} in the {split} split ({place}, row {row}) is "
                f"{'missing or empty' if not cell else f'of type {type(cell).__name__}'}; give a list of "
                f"{'words' if key == _WORDS else 'tags'}, or a text with blanks between them"
            )
        if wrong := [item for item in items if names and not 0 <= item < len(names)]:
            raise UserError(
                f"{key}: {wrong[0]} in the {split} split ({place}, row {row}) is none of the {len(names)} "
                f"tags of {name}; leave the row out"
            )
        rows.append([names[item] for item in items] if names else list(items))
    return rows


def _check_rows(words: list[list[Any]], tags: list[list[Any]], split: str, place: str) -> None:
    for row, (sentence, own) in enumerate(zip(words, tags, strict=True), start=1):
        where = f"the {split} split ({place}, row {row})"
        if wrong := [word for word in sentence if not (isinstance(word, str) and word and is_unicode(word))]:
            raise UserError(f"{_WORDS}: {wrong[0]!r} in {where} is no word; write text there")
        if len(sentence) != len(own):
            raise UserError(
                f"{_TAGS}: {where} has {counted(len(own), 'tag')} for {counted(len(sentence), 'word')}; "
                "give a tag for each word"
            )
