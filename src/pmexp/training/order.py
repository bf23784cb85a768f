"""Draws the order in which an epoch visits the training samples: a function of (seed, epoch) alone."""

import numpy as np
import torch
from torch import Tensor

from pmexp.models.examples import Examples, PaddedTexts
from pmexp.models.pairs import PairExamples

_BATCHES_OF_A_BUCKET = 64  # sorted by length together: well mixed still, and nearly without padding


def epoch_order(examples: Examples, seed: int, epoch: int, batch_size: int) -> Tensor:
    """Returns every row once, (samples,) int64. The rows of a batch lie side by side; those at the end that
    fill no batch are drawn like any others."""
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(examples))
    if not (isinstance(examples, PaddedTexts | PairExamples) and examples.bucketed):
        return torch.from_numpy(order)
    whole = len(order) // batch_size * batch_size
    lengths = examples.lengths.numpy()
    cuts = range(batch_size * _BATCHES_OF_A_BUCKET, whole, batch_size * _BATCHES_OF_A_BUCKET)
    buckets = [
        bucket[np.argsort(lengths[bucket], kind="stable")] for bucket in np.split(order[:whole], list(cuts))
    ]
    batches = random.permutation(np.concatenate(buckets).reshape(-1, batch_size))  # not from short to long
    return torch.from_numpy(np.concatenate([batches.ravel(), order[whole:]]))
