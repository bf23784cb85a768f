"""What every dataset is: labelled splits of images or texts. Imports no torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from pmexp.errors import UserError

_SPLIT_SEED = 0  # one dev split for every run, whatever its seed: runs then differ in nothing else

Images = NDArray[np.float32]  # (samples, channels, height, width)
Texts = list[tuple[str, ...]]  # a text, or a pair of texts, for each sample


@dataclass(frozen=True)
class Split:
    inputs: Images | Texts
    labels: NDArray[np.int64]  # (samples,)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Split":
        if isinstance(self.inputs, list):
            return Split([self.inputs[row] for row in rows], self.labels[rows])
        return Split(self.inputs[rows], self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    train: Split
    val: Split
    test: Split | None  # None where the set keeps its test labels to itself
    classes: list[str]


def carve(split: Split, fraction: float, what: str) -> tuple[Split, Split]:
    """Cuts `split` into (rest, carved), stratified by label and the same for every run.

    Raises UserError when a class has too few samples to be in both.
    """
    try:
        rest, carved = train_test_split(
            np.arange(len(split)), test_size=fraction, stratify=split.labels, random_state=_SPLIT_SEED
        )
    except ValueError as error:
        raise UserError(
            f"{what}: {len(split)} samples cannot be split by {fraction} with every class on both sides "
            f"({error}); use more data or give the split as a file"
        ) from None
    return split.take(np.sort(rest)), split.take(np.sort(carved))
