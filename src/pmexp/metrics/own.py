"""Finds a task's metric by its name, which may be the import path of a function of one's own.

Such a function is given an Evaluation and returns a number, of which more is better: an error is to be
returned with a minus.
"""

from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any, Final

from pmexp.errors import UserError
from pmexp.metrics.task_metrics import TASK_METRICS, Evaluation, TaskMetric, nothing
from pmexp.own_code import check_takes, imported, is_import_path, of_own_code
from pmexp.shown import class_of

UNIT: Final = "1"  # every metric of one's own has it, and this direction
DIRECTION: Final = "max"
_KEY = "dataset.metrics"


def task_metric(name: str) -> TaskMetric:
    """Returns the metric that a dataset names. Raises UserError for code that cannot be imported or does not
    take an Evaluation alone, and KeyError for a name that is neither a path nor a metric."""
    if not is_import_path(name):
        return TASK_METRICS[name]
    check_takes(_KEY, name, imported(_KEY, name), (None,), {}, _KEY)
    # What a constant answer reaches is not known: a score of it says nothing of a run that never learned.
    return TaskMetric(partial(_computed, name), nothing, UNIT, DIRECTION, name, objectives=())


def _computed(name: str, result: Evaluation) -> float:
    with of_own_code(_KEY, name):
        value = imported(_KEY, name)(_read_only(result))
    if not isinstance(value, Real):
        raise UserError(f"{_KEY}: {name}: returns {class_of(value)}; return a number, as float(...) is")
    try:
        return float(value)
    except OverflowError as error:
        raise UserError(f"{_KEY}: {name}: {error}; return a smaller number") from None


def _read_only(result: Evaluation) -> Evaluation:
    """The evaluation with arrays and texts that nobody can write into: others read them too."""
    import numpy as np

    parts: dict[str, Any] = {
        key: value.view() for key, value in vars(result).items() if isinstance(value, np.ndarray)
    }
    for array in parts.values():
        array.flags.writeable = False
    parts |= {key: tuple(value) for key, value in vars(result).items() if isinstance(value, list)}
    return replace(result, **parts)
