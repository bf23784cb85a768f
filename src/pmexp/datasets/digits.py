"""Loads handwritten digits: the 1797 real 8 x 8 images that scikit-learn bundles."""

import numpy as np
from sklearn.datasets import load_digits

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split, carve

_TEST_FRACTION = 0.2
_BRIGHTEST = 16.0


def load(config: DatasetConfig) -> Dataset:
    """Images (n, 1, 8, 8) scaled to [-1, 1]; a fixed fifth is the test split."""
    bunch = load_digits()
    images = (bunch.images[:, None] / (_BRIGHTEST / 2) - 1).astype(np.float32)
    everything = Split(images, bunch.target.astype(np.int64))
    rest, test = carve(everything, _TEST_FRACTION, "dataset=digits")
    train, val = carve(rest, config.val_fraction, "dataset.val_fraction")
    return Dataset(train, val, test, [str(name) for name in bunch.target_names], origin="scikit-learn")
