"""A side of the protocol that no run is of: which was looked for, which are there, and what to type."""

import shlex
from collections.abc import Collection
from dataclasses import replace

from pmexp.protocol import CriterionConfig, ProtocolConfig, Statistic
from pmexp.shown import counted
from pmexp_analysis.criteria.result import TaskResult
from pmexp_analysis.sources.experiment import Experiment

_NAMING_BOTH = (Statistic.only_fits, Statistic.largest_ratio)  # their words name what was tried, also by fit


def absent_sides(experiment: Experiment) -> list[str]:
    """Returns a line for the baseline, and for the method that criteria judge, where no run is of it."""
    variants = {member.labels.variant for member in experiment.members}
    keys = ("method", "baseline") if experiment.protocol.criteria else ("baseline",)
    return list(filter(None, (_said(key, experiment.protocol, variants) for key in keys)))


def where_present(part: TaskResult, criterion: CriterionConfig, experiment: Experiment) -> TaskResult:
    """Returns `part`; one that was not measured since no run there is of a side says that of the side."""
    if part.result != "not measured" or criterion.statistic in _NAMING_BOTH:
        return part
    labels = [member.labels for member in experiment.members]
    here = {each.variant for each in labels if (each.task, each.system) == (part.task, part.system)}
    variants = here or {each.variant for each in labels}  # over settings a task is none of a run's
    lines = (_said(key, experiment.protocol, variants) for key in _sides(criterion))
    return replace(part, why=next(filter(None, lines), part.why))


def _sides(criterion: CriterionConfig) -> tuple[str, ...]:
    if criterion.statistic is Statistic.unchanged:
        return ("baseline",)
    if criterion.statistic in (Statistic.mean, Statistic.diverged) or criterion.against is not None:
        return ("method",)
    return ("method", "baseline")


def _said(key: str, protocol: ProtocolConfig, variants: Collection[str]) -> str:
    """Says that none of `variants` is the protocol's `key`, method or baseline; empty where one is."""
    name = getattr(protocol, key)
    if name in variants:
        return ""
    if parts := sorted(one for one in variants if one.startswith(f"{name} ")):
        quoted = ", ".join(map(repr, parts))
        return (
            f"{key}={name}: {name} is {counted(len(parts), 'variant')} here: {quoted}; {_choose(key, parts)}"
        )
    there = ", ".join(map(repr, sorted(variants)))
    others = sorted(set(variants) - {protocol.method, protocol.baseline})
    choice = f"{_choose(key, others)}, or run {name}" if others else f"run {name}"
    return f"{key}={name}: no run here is of it, they are of {there}; {choice}"


def _choose(key: str, names: list[str]) -> str:
    more = " or another of them" if len(names) > 1 else ""
    return f"choose {key}={shlex.quote(names[0])}{more}"
