"""The table of final values by task, system, metric, variant and seed."""

import math
from dataclasses import dataclass, field

import pandas as pd

BySeed = dict[int, float]


@dataclass(frozen=True)
class MetricValues:
    """variant -> seed -> value of one metric in one task and system; NaN for what was not finite."""

    unit: str
    direction: str
    by_variant: dict[str, BySeed] = field(default_factory=dict)

    def finite(self, variant: str) -> BySeed:
        return {seed: v for seed, v in self.by_variant.get(variant, {}).items() if not math.isnan(v)}


@dataclass(frozen=True)
class SectionValues:
    """metric -> values, of one task and system."""

    task: str
    system: str
    metrics: dict[str, MetricValues] = field(default_factory=dict)


def values_of(finals: pd.DataFrame) -> list[SectionValues]:
    """The long table as one SectionValues a (task, system), sorted, its metrics sorted too.

    One pass in plain Python: pandas groups thousands of small groups a hundred times more slowly.
    """
    found: dict[tuple[str, str], SectionValues] = {}
    columns = ("task", "system", "metric", "unit", "direction", "variant", "seed", "value")
    for task, system, metric, unit, direction, variant, seed, value in zip(
        *(finals[name].tolist() for name in columns), strict=True
    ):
        if (section := found.get((task, system))) is None:
            section = found[task, system] = SectionValues(task, system)
        if (values := section.metrics.get(metric)) is None:
            values = section.metrics[metric] = MetricValues(unit, direction)
        values.by_variant.setdefault(variant, {})[seed] = value
    return [
        SectionValues(task, system, dict(sorted(found[task, system].metrics.items())))
        for task, system in sorted(found)
    ]
