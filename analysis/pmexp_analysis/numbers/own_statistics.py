"""Holds the statistics of somebody's own that a report may compute: those that its command names.

A run's record may name any code, so what it names is imported by nobody's wish but the reader's.
"""

from collections.abc import Callable, Iterable

import numpy as np

from pmexp.errors import UserError
from pmexp.own_code import check_takes, described, imported, of_own_code
from pmexp.shown import counted
from pmexp_analysis.numbers.stats import Array

_KEY = "statistics"
_allowed: dict[str, Callable[[Array, Array], Array]] = {}


def allow(paths: Iterable[str]) -> None:
    """Imports these statistics, and only these, for the reports of this process. Raises UserError."""
    _allowed.clear()
    for path in paths:
        function = imported(_KEY, path)
        check_takes(_KEY, path, function, ("method", "baseline"), {}, "")
        _allowed[path] = function


def refusal(path: str) -> str:
    """Why a statistic is not computed; empty where it may be."""
    return "" if path in _allowed else f"its statistic is code of somebody's own; allow it by {_KEY}={path}"


def identity(path: str) -> str:
    """Returns the import path, with the version and the digest of its code."""
    return f"{path} ({described(_KEY, path)})"


def samples(path: str, method: Array, reference: Array) -> Array:
    """Returns what ``statistic(method, reference)`` makes of the pairs of each row, shape (rows, n).

    Raises UserError where it fails, or gives other than a number a pair.
    """
    rows = []
    for ours, theirs in zip(method, reference, strict=True):
        with of_own_code(_KEY, path):
            row = np.asarray(_allowed[path](ours.copy(), theirs.copy()), dtype=float)
        if row.shape != ours.shape:
            raise UserError(
                f"{_KEY}: {path}: gives an array of shape {row.shape} for {counted(len(ours), 'pair')}; "
                "return a number a pair"
            )
        rows.append(row)
    return np.array(rows)
