"""Scores classes by scikit-learn, which is imported where a score is asked for: it takes half a second."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]  # (samples,)


def macro_f1(predicted: "Labels", true: "Labels") -> float:
    """The mean of F1 over the classes that are said or true; a class that is never hit counts 0."""
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, average="macro", zero_division=0.0))


def matthews(predicted: "Labels", true: "Labels") -> float:
    """Matthews' correlation, -1 to 1, also of more than two classes; 0 where all answers are one."""
    from sklearn.metrics import matthews_corrcoef

    known = {*predicted.tolist(), *true.tolist()}
    return float(matthews_corrcoef(true, predicted)) if len(known) > 1 else 0.0
