"""Joins what the ranks of a run have evaluated, each its share of a split, into one evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pmexp.metrics.task_metrics import Evaluation
from pmexp.models.objectives import IGNORED


@dataclass
class EvaluationShare:
    """What one rank has evaluated; rows are places in the split."""

    loss: float = 0.0  # summed over targets
    targets: int = 0
    scores: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)  # rows, scores, labels of each
    texts: list[tuple[int, str, str]] = field(default_factory=list)  # row, what was written, reference


def scored(rows: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns row, scores and label of each sample, or of each word that has a label."""
    if labels.dim() == 1:
        return rows, scores, labels
    has_label = labels != IGNORED
    return rows.repeat_interleave(has_label.sum(1)), scores[has_label], labels[has_label]


def joined(shares: list[EvaluationShare], classes: Sequence[str]) -> Evaluation:
    """Joins the share of each rank into one evaluation, its samples in the order of the split."""
    loss = sum(share.loss for share in shares) / max(1, sum(share.targets for share in shares))
    texts = sorted(text for share in shares for text in share.texts)
    _, written, references = zip(*texts, strict=True) if texts else ((), (), ())
    parts = [part for share in shares for part in share.scores]
    if not parts:
        empty = np.empty((0, 0), np.float32), np.empty(0, np.int64)
        return Evaluation(loss, *empty, written, references)
    rows, scores, true = (torch.cat(column) for column in zip(*parts, strict=True))
    order = rows.argsort(stable=True)  # words stay in the order of their sentence
    scores, true, rows = scores[order], true[order], rows[order]
    return Evaluation(loss, scores.numpy(), true.numpy(), sample=rows.numpy(), classes=classes)
