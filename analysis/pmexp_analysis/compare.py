"""From the table of final values to the report's rows and comparisons."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pmexp.metrics.catalog import metric_of
from pmexp_analysis import stats

_GROUP = ["task", "system", "metric"]
CONSTANT = "constant difference"


@dataclass(frozen=True)
class Row:
    """One metric of one variant over its seeds. `seeds` are those with a finite value; the seeds whose value
    was not finite are named apart and count in no statistic."""

    task: str
    system: str
    variant: str
    metric: str
    unit: str
    direction: str
    n: int
    seeds: list[int]
    not_finite_seeds: list[int]
    mean: float | None
    std: float | None
    min: float | None
    max: float | None


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline in one metric: differences are variant - baseline over the `n` pairs of
    one seed; the Welch test takes every seed of either side. `missing_seeds` names, for the sides "variant"
    and "baseline", the seeds that only the other side has. `holm_p` corrects `paired_p` over all comparisons
    of the same metric in the report."""

    task: str
    system: str
    metric: str
    variant: str
    baseline: str
    unit: str
    direction: str
    n: int
    missing_seeds: dict[str, list[int]]
    mean_difference: float | None = None
    relative_difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    paired_t: float | None = None
    paired_p: float | None = None
    welch_t: float | None = None
    welch_p: float | None = None
    holm_p: float | None = None
    effect_size: float | None = None
    verdict: stats.Verdict = "not comparable"
    note: str = ""


def in_order(metrics: list[str]) -> list[str]:
    """`metrics` in the catalog's order of sections: scores first, then memory, then speed, then the rest."""
    sections = ("test", "val", "train", "memory", "speed")

    def key(name: str) -> tuple[int, str]:
        section = name.split("/")[0]
        return (sections.index(section) if section in sections else len(sections), name)

    return sorted(metrics, key=key)


def label_of(metric: str) -> str:
    """The catalog's words for `metric`, or its name when a journal holds one the catalog does not know."""
    try:
        return metric_of(metric).label
    except KeyError:
        return metric


def rows(finals: pd.DataFrame) -> list[Row]:
    """One Row per (task, system, metric, variant), sorted so."""
    made = []
    for (task, system, metric, variant), group in finals.groupby([*_GROUP, "variant"], observed=True):
        known = group["value"].notna()
        sample = stats.describe(group.loc[known, "value"].to_numpy())
        made.append(
            Row(
                task=task,
                system=system,
                variant=variant,
                metric=metric,
                unit=group["unit"].iloc[0],
                direction=group["direction"].iloc[0],
                n=sample.n,
                seeds=sorted(group.loc[known, "seed"].tolist()),
                not_finite_seeds=sorted(group.loc[~known, "seed"].tolist()),
                mean=sample.mean,
                std=sample.std,
                min=sample.min,
                max=sample.max,
            )
        )
    return made


def comparisons(finals: pd.DataFrame, baseline: str) -> list[Comparison]:
    """Every variant against `baseline` in every metric, with Holm's correction and the verdict."""
    made = []
    for (task, system, metric), group in finals.groupby(_GROUP, observed=True):
        known = group[group["value"].notna()]
        by_variant: dict[str, dict[int, float]] = {variant: {} for variant in group["variant"].unique()}
        for variant, seed, value in zip(known["variant"], known["seed"], known["value"], strict=True):
            by_variant[variant][seed] = value
        base = by_variant.pop(baseline, {})
        shared: dict[str, Any] = {
            "task": task,
            "system": system,
            "metric": metric,
            "baseline": baseline,
            "unit": group["unit"].iloc[0],
            "direction": group["direction"].iloc[0],
        }
        made += [
            compare(by_variant[variant], base, variant=variant, **shared) for variant in sorted(by_variant)
        ]
    return _judged(made)


def compare(variant_of: dict[int, float], baseline_of: dict[int, float], **labels: Any) -> Comparison:
    """The pairs of two {seed: value} as an uncorrected Comparison: identical ones are already judged."""
    seeds = sorted(variant_of.keys() & baseline_of.keys())
    result = Comparison(
        **labels,
        n=len(seeds),
        missing_seeds={
            "variant": sorted(baseline_of.keys() - variant_of.keys()),
            "baseline": sorted(variant_of.keys() - baseline_of.keys()),
        },
    )
    if not seeds:
        return replace(result, note="no seed that both have")
    ours = np.array([variant_of[seed] for seed in seeds])
    theirs = np.array([baseline_of[seed] for seed in seeds])
    differences = ours - theirs
    difference = float(differences.mean())
    base_mean = float(theirs.mean())
    welch = stats.welch_t(np.array(list(variant_of.values())), np.array(list(baseline_of.values())))
    result = replace(
        result,
        mean_difference=difference,
        relative_difference=difference / base_mean if base_mean != 0 else None,
        welch_t=welch.t,
        welch_p=welch.p,
    )
    if not differences.any():
        span = 0.0 if len(seeds) > 1 else None
        return replace(result, ci_low=span, ci_high=span, verdict="identical")
    if stats.constant_difference(ours, theirs):
        return replace(result, ci_low=difference, ci_high=difference, note=CONSTANT)
    paired, interval = stats.paired_t(differences), stats.paired_interval(differences)
    return replace(
        result,
        ci_low=interval[0] if interval else None,
        ci_high=interval[1] if interval else None,
        paired_t=paired.t,
        paired_p=paired.p,
        effect_size=stats.effect_size(differences),
        note="one pair: no test" if len(seeds) == 1 else "",
    )


def _judged(uncorrected: list[Comparison]) -> list[Comparison]:
    families: dict[str, list[int]] = defaultdict(list)
    for place, comparison in enumerate(uncorrected):
        families[comparison.metric].append(place)
    judged = list(uncorrected)
    for places in families.values():
        corrected = stats.holm([uncorrected[place].paired_p for place in places])
        for place, holm_p in zip(places, corrected, strict=True):
            one = uncorrected[place]
            if one.mean_difference is None or one.verdict == "identical":
                continue
            is_constant = one.note == CONSTANT
            verdict = stats.verdict(one.mean_difference, one.direction, holm_p, is_constant)
            judged[place] = replace(one, holm_p=holm_p, verdict=verdict)
    return judged
