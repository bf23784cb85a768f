"""The types between the sources of runs and the rest: what a run tells, and an experiment as two tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

COLUMNS = ("run_id", "task", "system", "variant", "seed", "metric", "unit", "direction", "step", "value")


@dataclass(frozen=True, order=True)
class Labels:
    """What a run was about. Two runs of one (task, system, seed) that differ in variant are a pair."""

    task: str
    system: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Missing:
    """A run that should have a result and has none; `run_id` is None when no run is known at all."""

    task: str
    system: str
    variant: str
    seed: int
    run_id: str | None
    why: str


@dataclass(frozen=True)
class Curve:
    """The records of one run in the order written: five columns of one length, not finite = NaN."""

    metrics: Sequence[str] = ()
    units: Sequence[str] = ()
    directions: Sequence[str] = ()
    steps: Sequence[float] = ()
    values: Sequence[float] = ()


@dataclass(frozen=True)
class Run:
    """One run as its source tells it. `finals` (metric -> last value) is None for an unfinished run,
    and `why` then says what is known about the end of it."""

    run_id: str
    labels: Labels
    finals: Mapping[str, float] | None = None
    why: str = ""
    curve: Curve = field(default_factory=Curve)
    environment: Mapping[str, str | float] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)  # dotted key -> value
    tracking_uri: str | None = None  # where MLflow mirrors it


@dataclass(frozen=True)
class Experiment:
    """Everything a report is computed from. Both tables have the columns COLUMNS and hold finished runs only:
    `finals` one row a (run, metric), its step NaN; `curves` one row a (run, metric, step)."""

    name: str
    source: str
    finals: pd.DataFrame
    curves: pd.DataFrame
    missing: list[Missing]
    environment: dict[str, list[str | float]]
    tracking_uris: frozenset[str] = frozenset()
