"""Grids of hyperparameters: validation scores over the grid, and the test score of what validation chose."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pmexp.metrics.catalog import metric_of
from pmexp_analysis.numbers import stats
from pmexp_analysis.numbers.scores import scores
from pmexp_analysis.numbers.series import number_of, told_apart, varying
from pmexp_analysis.sources.experiment import Experiment, Member

HYPERPARAMETERS = ("train.lr", "variant.p", "train.weight_decay", "train.warmup_fraction")


@dataclass(frozen=True)
class Setting:
    """One place of a grid: the validation score over the seeds that finished. `why` says what is missing."""

    values: tuple[float, ...]
    n: int
    mean: float | None
    std: float | None
    why: str = ""


@dataclass(frozen=True)
class Grid:
    """All settings of one task, system and variant. `chosen` has the best mean of `metric`, which is of the
    validation split; `test` alone is read of the test split, at the chosen setting, seed -> value."""

    task: str
    system: str
    variant: str
    keys: tuple[str, ...]
    metric: str
    settings: list[Setting]
    chosen: tuple[float, ...] | None
    test_metric: str | None
    test: dict[int, float]


def grids(experiment: Experiment) -> list[Grid]:
    """A Grid a (task, system, variant) whose runs take several values of a hyperparameter; often none."""
    grouped: dict[tuple[str, str, str], list[Member]] = defaultdict(list)
    for member in experiment.members:
        grouped[member.words.task, member.labels.system, member.labels.variant].append(member)
    found = []
    for (task, system, variant), members in sorted(grouped.items()):
        keys = tuple(varying(members, HYPERPARAMETERS))
        for name, alike in told_apart(members, keys).items() if keys else ():
            grid = _grid(f"{task}{name}", system, variant, keys, alike)
            if grid:
                found.append(grid)
    return found


def _grid(
    task: str, system: str, variant: str, keys: tuple[str, ...], members: Sequence[Member]
) -> Grid | None:
    at: dict[tuple[float, ...], list[Member]] = defaultdict(list)
    for member in members:
        values = tuple(number_of(member.run.settings, key) for key in keys)
        if None not in values:
            at[tuple(value or 0.0 for value in values)].append(member)
    metrics = sorted({metric for member in members for metric in member.run.finals or {}})
    validation = scores(metrics, ["val"])
    if not validation:
        return None
    metric, test_metric = validation[0], next(iter(scores(metrics, ["test"])), None)
    settings = [_setting(values, runs, metric) for values, runs in sorted(at.items())]
    chosen = _best(settings, metric_of(metric).direction)
    test = {}
    if chosen is not None and test_metric is not None:
        test = {
            m.labels.seed: v for m in at[chosen] if (v := (m.run.finals or {}).get(test_metric)) is not None
        }
    return Grid(task, system, variant, keys, metric, settings, chosen, test_metric, test)


def _setting(values: tuple[float, ...], runs: Sequence[Member], metric: str) -> Setting:
    scored = np.array([m.run.finals[metric] for m in runs if m.run.finals and metric in m.run.finals])
    found = stats.describe(scored[np.isfinite(scored)])
    lost = sorted(filter(None, {_lost(m, metric) for m in runs}))
    return Setting(values, found.n, found.mean, found.std, ", ".join(lost))


def _lost(member: Member, metric: str) -> str:
    """Why a run is no part of the choice, or nothing. What it did on the test split has no say in it."""
    if member.run.finals is None:
        return member.run.state
    known = [v for m, v in member.run.finals.items() if m == metric or m.startswith("train/")]
    return "diverged" if not np.isfinite(known).all() else ""


def _best(settings: Sequence[Setting], direction: str) -> tuple[float, ...] | None:
    """Of the settings at which every run finished, finitely: one that lost runs was tried on fewer seeds."""
    whole = [s for s in settings if s.mean is not None and not s.why]
    sign = 1 if direction == "max" else -1
    best = max(whole, key=lambda s: sign * (s.mean or 0.0), default=None)
    return best.values if best else None
