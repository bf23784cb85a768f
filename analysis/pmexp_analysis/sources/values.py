"""Final values by task, system, metric, variant and seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of
from pmexp.run_folder.differences import said
from pmexp.run_folder.journal_lines import Curve

if TYPE_CHECKING:
    from pmexp_analysis.sources.experiment import Member  # which holds what is made here

BySeed = dict[int, float]


@dataclass(frozen=True)
class MetricValues:
    """variant -> seed -> value of one metric in one task and system; NaN for what was not finite."""

    unit: str
    direction: str
    by_variant: dict[str, BySeed] = field(default_factory=dict)

    def finite(self, variant: str) -> BySeed:
        every = self.by_variant.get(variant, {})
        if not any(map(math.isnan, every.values())):  # most are, and a copy of each takes long
            return every
        return {seed: value for seed, value in every.items() if not math.isnan(value)}


@dataclass(frozen=True)
class SectionValues:
    """metric -> values, of one task and system; a split's main metric comes first of the split's."""

    task: str
    system: str
    metrics: dict[str, MetricValues] = field(default_factory=dict)


def values_of(finished: Sequence["Member"]) -> list[SectionValues]:
    """The final values as one SectionValues a (task, system), sorted, its metrics by `main_first`.

    Raises UserError for a metric of which neither its run nor the catalog knows the unit.
    """
    sections: dict[tuple[str, str], SectionValues] = {}
    names: dict[tuple[str, str], tuple[str, ...]] = {}
    for member in finished:
        at, run = member.labels, member.run
        if (section := sections.get((at.task, at.system))) is None:
            section = sections[at.task, at.system] = SectionValues(at.task, at.system)
            names[at.task, at.system] = metrics_of_task(run.settings)
        for metric, value in (run.finals or {}).items():
            if (values := section.metrics.get(metric)) is None:
                values = section.metrics[metric] = MetricValues(*unit_and_direction(metric, run.curve))
            values.by_variant.setdefault(at.variant, {})[at.seed] = value
    ordered = []
    for place in sorted(sections):
        metrics = sections[place].metrics
        in_order = {name: metrics[name] for name in main_first(metrics, names[place])}
        ordered.append(SectionValues(*place, in_order))
    return ordered


def metrics_of_task(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Returns `dataset.metrics` of a run, whose first is the task's main one; () where it is not recorded."""
    told = said(settings.get("dataset.metrics", "[]"))  # text, as MLflow keeps it
    return tuple(filter(None, told.removeprefix("[").removesuffix("]").split(",")))


def main_first(metrics: Iterable[str], of_task: Sequence[str]) -> list[str]:
    """Returns `metrics` by name, those of a split in the order `of_task`; others of it before its losses."""
    rank = {name: place for place, name in enumerate(of_task)}

    def key(metric: str) -> tuple[str, int, bool, str]:
        section, _, name = metric.partition("/")
        return section, rank.get(name, len(rank)), _is_error(metric), metric

    return sorted(metrics, key=key)


@cache
def _is_error(metric: str) -> bool:
    try:
        return metric_of(metric).direction == "min"
    except KeyError:
        return False


def unit_and_direction(metric: str, curve: Curve) -> tuple[str, str]:
    """Returns what the last line of `metric` in `curve` says, else the catalog. Raises UserError where
    neither knows it."""
    for name, unit, direction in zip(
        reversed(curve.metrics), reversed(curve.units), reversed(curve.directions), strict=True
    ):
        if name == metric:
            return unit, direction
    return from_catalog(metric)


@cache
def from_catalog(name: str) -> tuple[str, str]:
    """Unit and direction of a metric. Raises UserError for one that the catalog does not know."""
    try:
        metric = metric_of(name)
    except KeyError as error:
        raise UserError(str(error.args[0])) from None
    return metric.unit, metric.direction
