"""Computes what the record of a run says of its trained model, so that runs can be compared by it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmexp.datasets.base import Dataset, Split
from pmexp.metrics.task_metrics import TASK_METRICS


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Returns the sha256, in hex, of the bytes of all `weights` in the order of their names.

    One weight at a time is copied to the CPU; those of the CPU are read where they lie.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        flat: Any = tensor.flatten().view(torch.uint8).numpy()
        digest.update(flat)
    return digest.hexdigest()


def chance(dataset: Dataset, metrics: list[str], vocabulary: int | None) -> dict[str, float]:
    """Returns for each score, such as "test/accuracy", what a constant answer reaches.

    For metrics of language, labelled or not, it is a guess among `vocabulary` tokens; nothing without one.
    For those of a regression it goes by the numbers of the split.
    """
    tokens = np.full(vocabulary, 1 / vocabulary) if vocabulary else np.zeros(0)
    chances = {}
    for name, split in _scored(dataset).items():
        for metric in metrics:
            known = TASK_METRICS.get(metric)  # a metric of one's own says no chance
            shares = _shares(split, dataset.classes) if known and known.of_labels else tokens
            if known and shares.size:
                chances[f"{name}/{metric}"] = known.chance(shares)
    return chances


def samples(dataset: Dataset) -> dict[str, int]:
    """Returns how many samples, or words with a label, each split that is scored has, by which the noise of a
    score is known."""
    return {name: len(split.labels) or len(split) for name, split in _scored(dataset).items()}


def _scored(dataset: Dataset) -> dict[str, Split]:
    splits = {"val": dataset.val, "test": dataset.test}
    return {name: split for name, split in splits.items() if split is not None}


def _shares(split: Split, classes: list[str]) -> NDArray[np.float64]:
    """The share of each class among the samples, shape (classes,); the numbers of a regression themselves."""
    if not classes:
        return split.labels.astype(np.float64)
    shares: NDArray[np.float64] = np.bincount(split.labels, minlength=len(classes)) / len(split.labels)
    return shares
