"""Metrics of a task: a function of (predicted, true) labels, its unit and direction. Imports no torch.

A new one is added here and named in a dataset's `metrics`; the catalog gives it val/ and test/ names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the configuration reads the names below: importing numpy is a tenth of --help
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]


@dataclass(frozen=True)
class TaskMetric:
    compute: Callable[["Labels", "Labels"], float]
    unit: str
    direction: Literal["min", "max"]
    label: str


def accuracy(predicted: "Labels", true: "Labels") -> float:
    """Share of samples whose label is right."""
    return float((predicted == true).mean())


def f1(predicted: "Labels", true: "Labels") -> float:
    """F1 of class 1 in a two-class task, as GLUE reports it; 0 where class 1 is nowhere."""
    hits = ((predicted == 1) & (true == 1)).sum()
    predicted_or_true = (predicted == 1).sum() + (true == 1).sum()
    return float(2 * hits / predicted_or_true) if predicted_or_true else 0.0


TASK_METRICS: dict[str, TaskMetric] = {
    "accuracy": TaskMetric(accuracy, "fraction", "max", "accuracy"),
    "f1": TaskMetric(f1, "fraction", "max", "F1"),
}
