"""Defines a dataset: splits of images, texts or symbols, labelled but for language. Imports no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pmexp.datasets.captioned import Captioned
from pmexp.datasets.carving import carved_by_label, carved_of
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.errors import UserError
from pmexp.shown import counted

_RECORDED = 100  # the most names of classes that a record lists
_NO_LABELS = np.zeros(0, dtype=np.int64)

Images = NDArray[np.float32]  # (samples, channels, height, width)
Texts = list[tuple[str, ...]]  # a text, or a pair of texts, for each sample


class Lazy(Protocol):
    """Samples that are read as they are asked for: decoded pictures, expressions of symbols."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    def take(self, rows: NDArray[np.int64]) -> "Lazy": ...


@dataclass(frozen=True)
class Split:
    """Holds samples with what is to be said of each.

    labels: (samples,) int64 of classes, or float32 of a regression's numbers; (words,) int64 of tagged words,
    sentence by sentence; empty for language and translation.
    """

    inputs: Images | Texts | Lazy | Captioned | TaggedWords
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: NDArray[np.int64]) -> "Split":
        if isinstance(self.inputs, list):
            return Split([self.inputs[row] for row in rows], self.labels[rows if len(self.labels) else []])
        if isinstance(self.inputs, TaggedWords):
            taken = self.inputs.take(rows)
            return Split(taken, taken.labels)
        if isinstance(self.inputs, np.ndarray):
            return Split(self.inputs[rows], self.labels[rows])
        assert not isinstance(self.inputs, Captioned)  # whose pictures are chosen before it is made
        return Split(self.inputs.take(rows), self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """Holds the splits of a dataset, and what the record says of where they are from."""

    train: Split
    val: Split
    test: Split | None  # None where the set keeps its test labels to itself
    classes: list[str]  # of samples or of words; empty for regression, language and translation
    unlabelled_test: Split | None = None  # the test split of such a set, labels all -1
    origin: str = ""  # where it lies; for a hub dataset also its commit
    digest: str = ""  # names its files' content, or the commit of a hub dataset
    left_out: str = ""  # what lies there and was not taken: how many and which
    doubts: str = ""  # what makes its scores say little, in one line

    def record(self, name: str) -> dict[str, str]:
        """What a run's record says of it, under keys that begin with `name`."""
        named = any(label != str(number) for number, label in enumerate(self.classes))
        few = [f"{number}: {label}" for number, label in enumerate(self.classes[:_RECORDED])]
        more_classes = [f"... of {len(self.classes)}"] if len(self.classes) > _RECORDED else []
        order = ", ".join(few + more_classes) if named else ""
        more = {"digest": self.digest, "left_out": self.left_out, "classes": order, "doubts": self.doubts}
        return {name: self.origin} | {f"{name}_{key}": value for key, value in more.items() if value}


def carve(split: Split, fraction: float, what: str, classes: Sequence[str] = ()) -> tuple[Split, Split]:
    """Cuts `split` into (rest, carved) as `carved_rows` says."""
    of_classes = len(split.labels) == len(split) and split.labels.dtype == np.int64
    strata = split.labels if of_classes and not isinstance(split.inputs, TaggedWords) else _NO_LABELS
    rest, carved = carved_rows(strata, fraction, what, len(split), classes)
    return split.take(rest), split.take(carved)


def carved_rows(
    labels: NDArray[np.int64],
    fraction: float,
    what: str,
    samples: int | None = None,
    classes: Sequence[str] = (),
) -> tuple[NDArray[np.int64], ...]:
    """Returns the sorted rows of (rest, carved), stratified by label if there are labels, and the same for
    every run.

    samples: how many there are, where they have no labels.
    classes: the names of the labels, by which an error calls them.

    Raises UserError when a class has too few samples to be in both.
    """
    try:
        return (
            carved_by_label(labels, fraction, classes) if len(labels) else carved_of(samples or 0, fraction)
        )
    except ValueError as error:
        raise UserError(
            f"{what}: {counted(len(labels) or samples or 0, 'sample')} cannot be split by {fraction}, every "
            f"class on both sides ({error}); use more data or give the split as a file"
        ) from None


def cache_folder() -> Path:
    """Returns the folder of fetched and generated data: $PMEXP_CACHE, or ~/.cache/pmexp."""
    return Path(os.environ.get("PMEXP_CACHE") or Path.home() / ".cache" / "pmexp")
