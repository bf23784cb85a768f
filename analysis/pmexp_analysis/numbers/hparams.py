"""Grids of hyperparameters: validation scores over the grid, and the test score of what validation chose."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pmexp.metrics.catalog import metric_of
from pmexp_analysis.numbers import stats
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.numbers.scores import scores
from pmexp_analysis.numbers.series import number_of, told_apart, varying, with_several
from pmexp_analysis.sources.experiment import Experiment, Member
from pmexp_analysis.sources.values import main_first, metrics_of_task

_ROUNDING = 1e-12  # means of the same numbers in another order differ by less
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
    validation split; `test` alone is read of the test split, at the chosen setting, seed -> value.

    `tied` are all settings with the best mean where there are several; `rule` says which one is chosen.
    """

    task: str
    system: str
    variant: str
    keys: tuple[str, ...]
    metric: str
    settings: list[Setting]
    chosen: tuple[float, ...] | None
    test_metric: str | None
    test: dict[int, float]
    tied: list[tuple[float, ...]] = field(default_factory=list)
    rule: str = ""


def grids(experiment: Experiment) -> list[Grid]:
    """A Grid a (task, system, variant) whose runs take several values of a hyperparameter; often none."""
    several = with_several(experiment.members, HYPERPARAMETERS)
    if not several:
        return []
    grouped: dict[tuple[str, str, str], list[Member]] = defaultdict(list)
    for member in experiment.members:
        grouped[member.words.task, member.labels.system, member.labels.variant].append(member)
    made = []
    for (task, system, variant), members in sorted(grouped.items()):
        keys = tuple(varying(members, several))
        for name, alike in told_apart(members, keys).items() if keys else ():
            grid = _grid(f"{task}{name}", system, variant, keys, alike)
            if grid:
                made.append(grid)
    return made


def _grid(
    task: str, system: str, variant: str, keys: tuple[str, ...], members: Sequence[Member]
) -> Grid | None:
    at: dict[tuple[float, ...], list[Member]] = defaultdict(list)
    for member in members:
        values = tuple(number_of(member.run.settings, key) for key in keys)
        if None not in values:
            at[tuple(value or 0.0 for value in values)].append(member)
    recorded = {metric for member in members for metric in member.run.finals or {}}
    metrics = main_first(recorded, metrics_of_task(members[0].run.settings))
    validation = scores(metrics, ["val"])
    if not validation:
        return None
    metric, test_metric = validation[0], next(iter(scores(metrics, ["test"])), None)
    seeds = {member.labels.seed for member in members}
    settings = [_setting(values, runs, metric, seeds) for values, runs in sorted(at.items())]
    tied = _best(settings, metric_of(metric).direction)
    chosen, rule = _one_of(tied, {values: _losses(at[values]) for values in tied})
    test = {}
    if chosen is not None and test_metric is not None:
        test = {
            m.labels.seed: v for m in at[chosen] if (v := (m.run.finals or {}).get(test_metric)) is not None
        }
    ties = tied if len(tied) > 1 else []
    return Grid(task, system, variant, keys, metric, settings, chosen, test_metric, test, ties, rule)


def _setting(values: tuple[float, ...], runs: Sequence[Member], metric: str, seeds: set[int]) -> Setting:
    """One place of a grid whose other places have `seeds`: one that lacks some of them says so."""
    scored = np.array([m.run.finals[metric] for m in runs if m.run.finals and metric in m.run.finals])
    described = stats.describe(scored[np.isfinite(scored)])
    lost = sorted(filter(None, {_lost(m, metric) for m in runs}))
    if absent := sorted(seeds - {m.labels.seed for m in runs}):
        lost.append(f"no run of {seeds_said(absent)}")
    return Setting(values, described.n, described.mean, described.std, ", ".join(lost))


def _lost(member: Member, metric: str) -> str:
    """Why a run is no part of the choice, or nothing. What it did on the test split has no say in it."""
    if member.run.finals is None:
        return member.run.state
    known = [v for m, v in member.run.finals.items() if m == metric or m.startswith("train/")]
    return "diverged" if not np.isfinite(known).all() else ""


def _best(settings: Sequence[Setting], direction: str) -> list[tuple[float, ...]]:
    """The settings with the best mean, up to rounding, among those at which every run finished, finitely: one
    that lost runs was tried on fewer seeds."""
    sign = 1 if direction == "max" else -1
    means = {s.values: sign * s.mean for s in settings if s.mean is not None and not s.why}
    best = max(means.values(), default=0.0)
    return sorted(values for values, mean in means.items() if math.isclose(mean, best, rel_tol=_ROUNDING))


def _losses(runs: Sequence[Member]) -> float:
    """The mean validation loss of a setting's runs; infinity where one records none."""
    losses = [(member.run.finals or {}).get("val/loss", math.inf) for member in runs]
    return float(np.mean(losses)) if np.isfinite(losses).all() else math.inf


def _one_of(
    tied: Sequence[tuple[float, ...]], losses: Mapping[tuple[float, ...], float]
) -> tuple[tuple[float, ...] | None, str]:
    """(the setting that the rule chooses of those that tie, the rule; empty where nothing ties)."""
    if not tied:
        return None, ""
    least = min(losses.values())
    lowest = [v for v in tied if losses[v] == least or math.isclose(losses[v], least, rel_tol=_ROUNDING)]
    if len(tied) == 1:
        return tied[0], ""
    rule = "the lower validation loss" if len(lowest) == 1 else "the smallest values, key by key"
    return min(lowest), f"{len(tied)} settings tie; chosen by {rule}"
