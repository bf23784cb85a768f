"""The rows that are carved off are those of scikit-learn's train_test_split, and the digits are its digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pmexp.datasets.base import carved_rows
from pmexp.datasets.digits import _rows
from pmexp.errors import UserError

LABELS = st.lists(st.integers(-3, 6), min_size=2, max_size=120)


@given(LABELS, st.floats(0.01, 0.5), st.booleans())
@settings(max_examples=300)
def test_the_rows_are_scikit_learns(drawn: list[int], fraction: float, by_label: bool) -> None:
    labels = np.array(drawn if by_label else [], dtype=np.int64)
    try:
        expected = train_test_split(
            np.arange(len(drawn)), test_size=fraction, stratify=labels if by_label else None, random_state=0
        )
    except ValueError:
        with pytest.raises(UserError, match="cannot be split by"):
            carved_rows(labels, fraction, "x", len(drawn))
        return
    for rows, wanted in zip(carved_rows(labels, fraction, "x", len(drawn)), expected, strict=True):
        assert np.array_equal(rows, np.sort(wanted)) and rows.dtype == np.int64


def test_the_digits_are_scikit_learns() -> None:
    bunch = load_digits()
    assert np.array_equal(_rows(), np.column_stack([bunch.data, bunch.target]))
