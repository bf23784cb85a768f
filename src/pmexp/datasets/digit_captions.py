"""Loads handwritten digits with a sentence that names each: the real images that scikit-learn bundles."""

import numpy as np

from pmexp.config import DatasetConfig
from pmexp.datasets import digits
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.captioned import CLASSES, Captioned

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load(config: DatasetConfig) -> Dataset:
    """Images (n, 1, 8, 8) scaled to [-1, 1], in the splits of dataset=digits."""
    plain = digits.load(config)
    assert plain.test is not None
    train, val, test = (_captioned(split) for split in (plain.train, plain.val, plain.test))
    return Dataset(train, val, test, CLASSES, origin=plain.origin)


def _captioned(split: Split) -> Split:
    assert isinstance(split.inputs, np.ndarray)
    texts = [f"a picture of the digit {_WORDS[label]}" for label in split.labels]
    captioned = Captioned(split.inputs, texts, np.arange(len(texts)))
    return Split(captioned, captioned.labels)
