"""Finds what makes the scores of a dataset say little, though each row can be read. Imports no torch."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.digest import READ_AT_MOST, sha256_of
from pmexp.datasets.pictures import Pictures
from pmexp.datasets.tagged_words import TaggedWords


def doubts(dataset: Dataset) -> str:
    """Returns one line of what is doubtful about the splits, empty where nothing is.

    That is a test split of one class, samples of train that are there with several labels, a val or test
    split of which half the samples are in train, and a split of empty texts.
    """
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    told = [f"every text of the {name} split is empty" for name, split in splits.items() if _is_empty(split)]
    if not told:
        samples = list(_samples(dataset.train))
        told = [
            *_one_class(dataset),
            *_of_several_labels(dataset, samples),
            *_seen_in_train(dataset, samples),
        ]
    return "; ".join(told)


def _one_class(dataset: Dataset) -> list[str]:
    test = dataset.test
    if test is None or not dataset.classes or isinstance(test.inputs, TaggedWords):
        return []
    labels = np.unique(test.labels)
    return [f"every row of the test split is of the class {dataset.classes[labels[0]]!r}"] * (
        len(labels) == 1
    )


def _of_several_labels(dataset: Dataset, samples: Sequence[object]) -> list[str]:
    """Says how many of the `samples` of train, those of a classifier, have another label elsewhere in it."""
    train = dataset.train
    if not dataset.classes or isinstance(train.inputs, TaggedWords) or not samples:
        return []
    labels_of: dict[object, set[int]] = defaultdict(set)
    for sample, label in zip(samples, train.labels.tolist(), strict=True):
        labels_of[sample].add(label)
    count = sum(len(labels_of[sample]) > 1 for sample in samples)
    said = f"{count} of {len(samples)} samples of the train split are there with another label too"
    return [said] * (count > 0)


def _seen_in_train(dataset: Dataset, samples: Iterable[object]) -> list[str]:
    """Says of which splits half the samples or more are in train; of running text, whose lines repeat, nobody
    asks."""
    known = set(samples)
    told = []
    for name, split in {"val": dataset.val, "test": dataset.test}.items():
        seen = sum(sample in known for sample in _samples(split)) if split else 0
        if split and 2 * seen >= len(split) > 0:
            told.append(f"{seen} of {len(split)} samples of the {name} split are in the train split too")
    return told


def _is_empty(split: Split | None) -> bool:
    """Whether it has texts, and no letter in any of them."""
    if split is None or not isinstance(split.inputs, list):
        return False
    return not any(text.strip() for texts in split.inputs for text in texts)


def _samples(split: Split) -> Iterator[object]:
    """Yields the samples with a label: texts as they are, and a hash of each array that lies in memory and of
    each picture's file, unless these are too many to be read at each start."""
    if not len(split.labels) or isinstance(split.inputs, np.memmap):
        return
    if isinstance(split.inputs, list):
        yield from map(tuple, split.inputs)
    elif isinstance(split.inputs, TaggedWords):
        yield from split.inputs.sentences
    elif isinstance(split.inputs, np.ndarray):
        yield from (hash(sample.tobytes()) for sample in split.inputs)
    elif isinstance(split.inputs, Pictures):
        files = split.inputs.files()
        if sum(map(os.path.getsize, files)) <= READ_AT_MOST:
            yield from (sha256_of(Path(file)) for file in files)
