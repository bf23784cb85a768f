"""Loads texts or pairs of texts with a class or a number each, from the Hugging Face hub or a local folder.

A folder holds {train,validation|valid|dev|val,test}.{csv,tsv,jsonl,json,parquet} with the columns that
`dataset.text_columns` and `dataset.label_column` name. Labels are class names or whole numbers, and any
numbers where `dataset.objective` is regression.
"""

from dataclasses import replace

from pmexp.config import DatasetConfig, Objective
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.labels import UNLABELLED, LabelColumn, measured, numbered
from pmexp.datasets.tables import Tables, class_names, column, tables, texts
from pmexp.errors import UserError
from pmexp.shown import few


def load(config: DatasetConfig) -> Dataset:
    """Returns the texts, or pairs of texts, and their labels. Raises UserError where they cannot be had."""
    if not 1 <= len(config.text_columns) <= 2:
        raise UserError(
            f"dataset.text_columns: {config.text_columns} must name one column of texts, or two of pairs"
        )
    loaded = tables(config)
    inputs = {split: _texts(config, loaded, split) for split in loaded.splits}
    columns = {split: _labels(config, loaded, split) for split in loaded.splits}
    of_numbers = config.objective is Objective.regression
    classes, numbers = (
        ([], measured(columns))
        if of_numbers
        else numbered(columns, case_sensitive=config.case_sensitive_labels)
    )
    if classes:
        classes = _named(config, loaded, classes)
    splits = {split: Split(inputs[split], numbers[split]) for split in loaded.splits}
    # GLUE keeps the labels of test to itself and writes -1.
    hidden_of = [s for s in ("val", "test") if s in splits and (splits[s].labels == UNLABELLED).all()]
    unlabelled = {split: splits.pop(split) for split in hidden_of}
    if "val" in unlabelled:
        raise UserError(
            f"dataset.label_column: the val split ({loaded.places['val']}) has no labels but {UNLABELLED}; "
            "label it, or remove it to have one carved from train"
        )
    return replace(loaded.dataset(config, splits, classes), unlabelled_test=unlabelled.get("test"))


def _texts(config: DatasetConfig, loaded: Tables, split: str) -> list[tuple[str, ...]]:
    columns = [texts(config, loaded, split, name) for name in config.text_columns]
    return list(zip(*columns, strict=True))


def _labels(config: DatasetConfig, loaded: Tables, split: str) -> LabelColumn:
    table, place = loaded.splits[split], loaded.places[split]
    if split == "test" and config.label_column not in table.column_names:
        return LabelColumn(place, [UNLABELLED] * len(table))
    return LabelColumn(place, column(config, table, config.label_column, "dataset.label_column", place)[:])


def _named(config: DatasetConfig, loaded: Tables, classes: list[str]) -> list[str]:
    """Returns the names of the classes where they are numbers that have such in the tables; in their order.

    Raises UserError where two splits give a number two names, and for a number without one.
    """
    names = {split: class_names(table, config.label_column) for split, table in loaded.splits.items()}
    of_train = names["train"]
    for split, own in names.items():
        if own and own != of_train:
            raise UserError(
                f"dataset.label_column: the numbers of the {split} split ({loaded.places[split]}) stand for "
                f"{few(own)}, and those of train for {few(of_train) or 'nothing'}; write all splits with one "
                "list of names"
            )
    if of_train and (beyond := [name for name in classes if int(name) >= len(of_train)]):
        raise UserError(
            f"dataset.label_column: {beyond[0]} in the train split ({loaded.places['train']}) is none of the "
            f"{len(of_train)} classes of {config.label_column}; leave its rows out"
        )
    return [of_train[int(name)] for name in classes] if of_train else classes
