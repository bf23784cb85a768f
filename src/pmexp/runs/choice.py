"""Chooses runs by state, by label and by any key of their configuration."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pmexp.command_line import given_twice, meant
from pmexp.errors import UserError
from pmexp.run_folder.differences import said
from pmexp.run_folder.found import FoundRun
from pmexp.run_folder.plan import LABELS
from pmexp.run_folder.state import State

STATES = (
    State.pending, State.running, State.finished, State.oom, State.failed, State.interrupted, State.stale,
)  # fmt: skip
AGAIN = (State.failed, State.interrupted, State.stale)  # what retry runs
_COMMA = re.compile(r",(?![^\[]*\])")  # between values, not within a list
_DIGITS = 15  # as the configuration keeps floats
UNTOLD = object()  # in the place of a value, which may be None


def states(text: str, allowed: Sequence[State] = STATES) -> list[State]:
    """The states of `state=failed,oom`. Raises UserError for another word."""
    names = [state.name for state in allowed]
    for word in text.split(","):
        if word not in names:
            raise UserError(f"state: {word!r} is unknown; allowed are {', '.join(names)}")
    return [State[word] for word in text.split(",")]


def wanted(typed: Sequence[str]) -> dict[str, list[str]]:
    """Key -> the values asked for, of filters such as train.lr=1e-3,1e-4. Raises UserError for a key that is
    given twice."""
    values: dict[str, list[str]] = {}
    for argument in typed:
        key, _, text = argument.partition("=")
        if key in values:
            raise UserError(given_twice(f"{key}={','.join(values[key])}", argument))
        values[key] = _COMMA.split(text)
    return values


def chosen(
    runs: Sequence[FoundRun], states: Sequence[State], wanted: Mapping[str, Sequence[str]]
) -> list[FoundRun]:
    """The runs in one of the states that have one of the values of each label or setting.

    Raises UserError for a key that no run has, and for a value that no run has.
    """
    for key, values in wanted.items():
        known = {said(value): value for run in runs if (value := value_of(run, key)) is not UNTOLD}
        if not known and key not in LABELS:
            keys = dict.fromkeys([*LABELS, *(key for run in runs for key in run.settings)])
            raise UserError(
                f"{key}={','.join(values)}: no run has the key {key}; {meant(key, keys)}allowed are those "
                "that a run's summary.json has under settings"
            )
        for typed in values:
            if not any(is_same(value, typed) for value in known.values()):
                there = ", ".join(known) or "none"
                raise UserError(f"{key}={typed}: no run has it; there are {there}")
    return [run for run in runs if run.state in states and all(_has(run, *each) for each in wanted.items())]


def is_same(value: Any, typed: str) -> bool:
    """Whether `typed` means the value of a setting: 1e-3 is 0.001, and a relative path the absolute one."""
    if typed == said(value):  # a seed of 16 digits is no float
        return True
    match value:
        case bool() | None:
            return typed.lower() == said(value)
        case int() | float():
            try:
                return float(f"{float(typed):.{_DIGITS}g}") == value
            except ValueError:
                return False
        case list():
            inner = typed.removeprefix("[").removesuffix("]")
            items = inner.split(",") if inner.strip() else []
            return len(items) == len(value) and all(
                is_same(one, item.strip()) for one, item in zip(value, items, strict=True)
            )
    return str(value) in (typed, os.path.realpath(os.path.expanduser(typed)))


def _has(run: FoundRun, key: str, values: Sequence[str]) -> bool:
    value = value_of(run, key)
    return value is not UNTOLD and any(is_same(value, typed) for typed in values)


def value_of(run: FoundRun, key: str) -> Any:
    """The value of a label or of a setting; UNTOLD where the run has none on record."""
    return run.labels.get(key, run.settings.get(key, UNTOLD))
