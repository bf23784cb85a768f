"""Defines a task's metrics: each a function of an evaluation, with unit and direction. Imports no torch.

A new one is added here and named in a dataset's `metrics`; the catalog gives it val/ and test/ names.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pmexp.metrics.bleu import bleu, bleu_signature

if TYPE_CHECKING:  # the configuration reads the names below: importing numpy is a tenth of --help
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]  # (samples,)
    Scores = NDArray[np.float32]  # (samples, classes), the highest for the predicted class
    Shares = NDArray[np.float64]  # (classes,), of the samples, by their true class


@dataclass(frozen=True)
class Evaluation:
    """What a model said about a split. A language model has no scores: its loss says all, or its texts."""

    loss: float  # mean over targets, nats
    scores: "Scores"
    true: "Labels"
    written: Sequence[str] = ()  # the texts that a seq2seq model wrote
    references: Sequence[str] = ()  # (samples,) what it should have written

    @property
    def predicted(self) -> "Labels":
        best: Labels = self.scores.argmax(-1)
        return best


@dataclass(frozen=True)
class TaskMetric:
    """Says how well a task was learned.

    `chance`: what a constant answer reaches, by the share of each class; a model that scores no better has
    learned nothing.
    """

    compute: Callable[[Evaluation], float]
    chance: Callable[["Shares"], float]
    unit: str
    direction: Literal["min", "max"]
    label: str
    objectives: tuple[str, ...] = ("classification",)  # it is one of these, by config.Objective
    is_share: bool = False  # the share of samples that are answered right, whose noise is binomial
    package: str = ""  # what it is computed by, where an extra brings that
    record: Callable[[], str] | None = None  # says for the record of a run how it is computed


def accuracy(predicted: "Labels", true: "Labels") -> float:
    """Share of samples whose label is right."""
    return float((predicted == true).mean())


def f1(predicted: "Labels", true: "Labels") -> float:
    """F1 of class 1 in a two-class task, as GLUE reports it; 0 where class 1 is nowhere."""
    hits = ((predicted == 1) & (true == 1)).sum()
    predicted_or_true = (predicted == 1).sum() + (true == 1).sum()
    return float(2 * hits / predicted_or_true) if predicted_or_true else 0.0


def top5(scores: "Scores", true: "Labels") -> float:
    """Share of samples whose label is among the five of the highest scores."""
    best = (-scores).argsort(axis=-1, kind="stable")[:, :5]
    return float((best == true[:, None]).any(-1).mean())


def perplexity(loss: float) -> float:
    """exp of the mean loss; infinity beyond the largest number."""
    return math.exp(loss) if loss < 700 else math.inf


def largest(shares: "Shares", classes: int = 1) -> float:
    """Share of the samples that are in one of the `classes` most frequent classes."""
    return float(sum(sorted(shares)[-classes:]))


def f1_of_ones(shares: "Shares") -> float:
    """F1 of class 1 where every sample of a two-class task is said to be in it."""
    return float(2 * shares[1] / (1 + shares[1]))


def perplexity_of_shares(shares: "Shares") -> float:
    """Perplexity of the classes' own frequencies: their number, where all are alike."""
    return math.exp(-sum(float(share) * math.log(share) for share in shares if share > 0))


TASK_METRICS: dict[str, TaskMetric] = {
    "accuracy": TaskMetric(
        lambda result: accuracy(result.predicted, result.true),
        largest,
        "fraction",
        "max",
        "accuracy",
        is_share=True,
    ),
    "f1": TaskMetric(lambda result: f1(result.predicted, result.true), f1_of_ones, "fraction", "max", "F1"),
    "top5": TaskMetric(
        lambda result: top5(result.scores, result.true),
        lambda shares: largest(shares, 5),
        "fraction",
        "max",
        "top-5 accuracy",
        is_share=True,
    ),
    "perplexity": TaskMetric(
        lambda result: perplexity(result.loss),
        perplexity_of_shares,
        "1",
        "min",
        "perplexity",
        ("masked_lm", "causal_lm"),
    ),
    "bleu": TaskMetric(
        lambda result: bleu(result.written, result.references),
        lambda shares: 0.0,
        "points",
        "max",
        "BLEU",
        ("seq2seq",),
        package="sacrebleu",
        record=bleu_signature,
    ),
}
