"""Defines a task's metrics: each a function of an evaluation, with unit and direction. Imports no torch.

A new one is added here and named in a dataset's `metrics`; the catalog gives it val/ and test/ names.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pmexp.metrics.class_scores import macro_f1, matthews
from pmexp.metrics.entities import entity_f1
from pmexp.metrics.number_scores import (
    deviation_from_median,
    mean_absolute_error,
    mean_squared_error,
    pearson,
    spearman,
    variance,
)
from pmexp.metrics.text_scores import bleu, bleu_signature, chrf, chrf_signature

if TYPE_CHECKING:  # the configuration reads the names below: importing numpy is a tenth of --help
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]  # (samples,)
    Numbers = NDArray[np.float32]  # (samples,)
    Answers = NDArray[Any]  # (samples,) int64 of classes, or float32 of numbers
    Scores = NDArray[np.float32]  # (samples, classes), the highest for the predicted class; or (samples, 1)
    Shares = NDArray[np.float64]  # (classes,), of the samples, by their true class
    Rows = NDArray[np.int64]  # (samples,) places in the split


@dataclass(frozen=True)
class Evaluation:
    """What a model said about a split. A language model has no scores: its loss says all, or its texts.

    Where words have labels, each word is a sample here, and those of a sentence follow each other.
    """

    loss: float  # mean over targets: nats, or the squared error of a regression
    scores: "Scores"
    true: "Answers"
    written: Sequence[str] = ()  # the texts that a seq2seq model wrote
    references: Sequence[str] = ()  # (samples,) what it should have written
    sample: "Rows | None" = None  # the row of the split that each sample, or word, is of
    classes: Sequence[str] = ()  # the names of the classes

    @property
    def predicted(self) -> "Labels":
        best: Labels = self.scores.argmax(-1)
        return best

    @property
    def numbers(self) -> "Numbers":
        """Returns what a regression says of each sample, (samples,)."""
        return self.scores[:, 0]

    def sentences(self, labels: "Labels") -> list[list[str]]:
        """Returns the names of `labels`, one for each word, sentence by sentence."""
        assert self.sample is not None
        sentences: dict[int, list[str]] = {}
        for row, label in zip(self.sample.tolist(), labels.tolist(), strict=True):
            sentences.setdefault(row, []).append(self.classes[label])
        return list(sentences.values())


@dataclass(frozen=True)
class TaskMetric:
    """Says how well a task was learned.

    `chance`: what a constant answer reaches, by the share of each class, or by the numbers of a regression; a
    model that scores no better has learned nothing.
    """

    compute: Callable[[Evaluation], float]
    chance: Callable[["Shares"], float]
    unit: str
    direction: Literal["min", "max"]
    label: str
    objectives: tuple[str, ...] = ("classification",)  # it is of these, by config.Objective; (): one's own
    is_share: bool = False  # the share of samples that are answered right, whose noise is binomial
    package: str = ""  # what it is computed by, where an extra brings that
    range: tuple[float, float] = (-math.inf, math.inf)  # the lowest and the highest that it can be
    record: Callable[[], str] | None = None  # says for the record of a run how it is computed

    @property
    def of_labels(self) -> bool:
        """Whether it is of labels that a dataset has, and not of language."""
        return bool({"classification", "regression", "token_classification"} & {*self.objectives})


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


def macro_f1_of_one(shares: "Shares") -> float:
    """Macro F1 where every sample is said to be in the most frequent class."""
    most = float(max(shares))
    return 2 * most / (1 + most) / int((shares > 0).sum())


def nothing(shares: "Shares") -> float:
    """What a constant answer reaches where only answers that differ count."""
    return 0.0


_SHARE, _POINTS, _CORRELATION = (0.0, 1.0), (0.0, 100.0), (-1.0, 1.0)

TASK_METRICS: dict[str, TaskMetric] = {
    "accuracy": TaskMetric(
        lambda result: accuracy(result.predicted, result.true),
        largest,
        "fraction",
        "max",
        "accuracy",
        ("classification", "token_classification"),
        is_share=True,
        range=_SHARE,
    ),
    "f1": TaskMetric(
        lambda result: f1(result.predicted, result.true), f1_of_ones, "fraction", "max", "F1", range=_SHARE
    ),
    "top5": TaskMetric(
        lambda result: top5(result.scores, result.true),
        lambda shares: largest(shares, 5),
        "fraction",
        "max",
        "top-5 accuracy",
        is_share=True,
        range=_SHARE,
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
        nothing,
        "points",
        "max",
        "BLEU",
        ("seq2seq",),
        package="sacrebleu",
        record=bleu_signature,
        range=_POINTS,
    ),
    "chrf": TaskMetric(
        lambda result: chrf(result.written, result.references),
        nothing,
        "points",
        "max",
        "chrF",
        ("seq2seq",),
        package="sacrebleu",
        record=chrf_signature,
        range=_POINTS,
    ),
    "macro_f1": TaskMetric(
        lambda result: macro_f1(result.predicted, result.true),
        macro_f1_of_one,
        "fraction",
        "max",
        "macro F1",
        ("classification", "token_classification"),
        package="sklearn",
        range=_SHARE,
    ),
    "mcc": TaskMetric(
        lambda result: matthews(result.predicted, result.true),
        nothing,
        "1",
        "max",
        "Matthews correlation",
        package="sklearn",
        range=_CORRELATION,
    ),
    "entity_f1": TaskMetric(
        lambda result: entity_f1(result.sentences(result.predicted), result.sentences(result.true)),
        nothing,
        "fraction",
        "max",
        "entity F1",
        ("token_classification",),
        range=_SHARE,
    ),
    "pearson": TaskMetric(
        lambda result: pearson(result.numbers, result.true),
        nothing,
        "1",
        "max",
        "Pearson correlation",
        ("regression",),
        package="scipy",
        range=_CORRELATION,
    ),
    "spearman": TaskMetric(
        lambda result: spearman(result.numbers, result.true),
        nothing,
        "1",
        "max",
        "Spearman correlation",
        ("regression",),
        package="scipy",
        range=_CORRELATION,
    ),
    "mse": TaskMetric(
        lambda result: mean_squared_error(result.numbers, result.true),
        variance,
        "1",
        "min",
        "mean squared error",
        ("regression",),
    ),
    "mae": TaskMetric(
        lambda result: mean_absolute_error(result.numbers, result.true),
        deviation_from_median,
        "1",
        "min",
        "mean absolute error",
        ("regression",),
    ),
}
