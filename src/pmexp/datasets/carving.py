"""Cuts a part off a dataset, stratified by label and the same for every run. Imports no torch.

The rows are those of scikit-learn's `train_test_split`, which is not called: to import scikit-learn takes a
third as long as torch and transformers together, and each run would wait for it. A test compares the two.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pmexp.shown import few

_SPLIT_SEED = 0  # one dev split for every run, whatever its seed: runs then differ in nothing else

Rows = NDArray[np.int64]


def carved_of(samples: int, fraction: float) -> tuple[Rows, Rows]:
    """Returns the sorted rows of (rest, carved), drawn without labels. Raises ValueError for an empty one."""
    carved = _carved_samples(samples, fraction, at_least=1)
    drawn = np.random.RandomState(_SPLIT_SEED).permutation(samples)
    return np.sort(drawn[carved:]), np.sort(drawn[:carved])


def carved_by_label(labels: Rows, fraction: float, classes: Sequence[str] = ()) -> tuple[Rows, Rows]:
    """Returns the sorted rows of (rest, carved), each with its share of each label. Raises ValueError where
    a label would be missing on a side, with its name among `classes`."""
    known, of_sample, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        lone = [classes[label] if classes else label for label in known[counts < 2].tolist()]
        raise ValueError(f"one sample each is of {'class' if len(lone) == 1 else 'classes'} {few(lone)}")
    carved = _carved_samples(len(labels), fraction, at_least=len(known))
    generator = np.random.RandomState(_SPLIT_SEED)
    to_rest = _shares(counts, len(labels) - carved, generator)
    to_carved = _shares(counts - to_rest, carved, generator)
    sides: tuple[list[Rows], list[Rows]] = ([], [])
    for label, count in enumerate(counts):
        rows = np.flatnonzero(of_sample == label)[generator.permutation(count)]
        middle = to_rest[label]
        sides[0].append(rows[:middle])
        sides[1].append(rows[middle : middle + to_carved[label]])
    rest, cut = (np.sort(np.concatenate(side)) for side in sides)
    return rest, cut


def _carved_samples(samples: int, fraction: float, at_least: int) -> int:
    """How many samples are carved off. Raises ValueError where a side has fewer than `at_least`."""
    carved = math.ceil(fraction * samples)
    if min(carved, samples - carved) < at_least:
        raise ValueError(f"one side would have {min(carved, samples - carved)}, and needs {at_least}")
    return carved


def _shares(counts: Rows, drawn: int, generator: np.random.RandomState) -> Rows:
    """How many of `drawn` samples each class gets, of its `counts`: as many as its share has whole ones, and
    what is then left goes by the largest fractions, drawn among equal ones."""
    exact = counts / counts.sum() * drawn
    shares = np.floor(exact)
    fractions = exact - shares
    left = int(drawn - shares.sum())
    for fraction in np.unique(fractions)[::-1]:
        if left <= 0:
            break
        equal = np.flatnonzero(fractions == fraction)
        chosen = generator.choice(equal, size=min(len(equal), left), replace=False)
        shares[chosen] += 1
        left -= len(chosen)
    whole: Rows = shares.astype(np.int64)
    return whole
