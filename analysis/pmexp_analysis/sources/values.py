"""Final values by task, system, metric, variant and seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of
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
    """metric -> values, of one task and system."""

    task: str
    system: str
    metrics: dict[str, MetricValues] = field(default_factory=dict)


def values_of(finished: Sequence["Member"]) -> list[SectionValues]:
    """The final values as one SectionValues a (task, system), sorted, its metrics sorted too.

    Raises UserError for a metric of which neither its run nor the catalog knows the unit.
    """
    sections: dict[tuple[str, str], SectionValues] = {}
    for member in finished:
        at, run = member.labels, member.run
        if (section := sections.get((at.task, at.system))) is None:
            section = sections[at.task, at.system] = SectionValues(at.task, at.system)
        for metric, value in (run.finals or {}).items():
            if (values := section.metrics.get(metric)) is None:
                values = section.metrics[metric] = MetricValues(*unit_and_direction(metric, run.curve))
            values.by_variant.setdefault(at.variant, {})[at.seed] = value
    return [
        SectionValues(task, system, dict(sorted(sections[task, system].metrics.items())))
        for task, system in sorted(sections)
    ]


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
