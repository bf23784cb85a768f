"""Loads handwritten digits: the 1797 real 8 x 8 images that scikit-learn bundles."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split, carve
from pmexp.errors import UserError
from pmexp.extras import need

_TEST_FRACTION = 0.2
_BRIGHTEST = 16.0


def load(config: DatasetConfig) -> Dataset:
    """Images (n, 1, 8, 8) scaled to [-1, 1]; a fixed fifth is the test split."""
    rows = _rows()  # 64 pixels and the digit
    images = (rows[:, :-1].reshape(-1, 1, 8, 8) / (_BRIGHTEST / 2) - 1).astype(np.float32)
    everything = Split(images, rows[:, -1].astype(np.int64))
    rest, test = carve(everything, _TEST_FRACTION, "dataset=digits")
    train, val = carve(rest, config.val_fraction, "dataset.val_fraction")
    return Dataset(train, val, test, [str(digit) for digit in range(10)], origin="scikit-learn")


def _rows() -> NDArray[np.float64]:
    """Reads the file where scikit-learn has it, as `load_digits` does, which takes a second to import."""
    need("dataset=digits", "sklearn")
    package = find_spec("sklearn")
    assert package and package.origin
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise UserError(f"dataset=digits: {file} is not there; install the scikit-learn of constraints.txt")
    with gzip.open(file) as stream:
        return np.loadtxt(stream, delimiter=",")
