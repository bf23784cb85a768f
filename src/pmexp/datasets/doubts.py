"""Finds what makes the scores of a dataset say little, though each row can be read. Imports no torch."""

import numpy as np

from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.tagged_words import TaggedWords


def doubts(dataset: Dataset) -> str:
    """Returns one line of what is doubtful about the splits, empty where nothing is.

    That is a test split of one class, one whose texts are all in train, and a split of empty texts.
    """
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    told = [f"every text of the {name} split is empty" for name, split in splits.items() if _is_empty(split)]
    if dataset.test and not told:
        told = _doubts_of_test(dataset, dataset.test)
    return "; ".join(told)


def _doubts_of_test(dataset: Dataset, test: Split) -> list[str]:
    told = []
    labels = np.unique(test.labels)
    if dataset.classes and len(labels) == 1 and not isinstance(test.inputs, TaggedWords):
        told.append(f"every row of the test split is of the class {dataset.classes[labels[0]]!r}")
    if _is_inside(test, dataset.train):
        told.append("every row of the test split has its text in the train split too")
    return told


def _is_empty(split: Split | None) -> bool:
    """Whether it has texts, and no letter in any of them."""
    if split is None or not isinstance(split.inputs, list):
        return False
    return not any(text.strip() for texts in split.inputs for text in texts)


def _is_inside(test: Split, train: Split) -> bool:
    """Whether all texts of `test` are in `train`; of running text, whose lines repeat, nobody asks."""
    if not (isinstance(test.inputs, list) and isinstance(train.inputs, list) and len(test.labels)):
        return False
    known = set(train.inputs)
    return all(texts in known for texts in test.inputs)
