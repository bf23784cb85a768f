"""From the table of final values to the report's rows and comparisons."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pmexp.protocol import Family, ProtocolConfig, Statistic
from pmexp_analysis.numbers import scales, sigmas, stats
from pmexp_analysis.numbers.cells import counted as said_number
from pmexp_analysis.numbers.evidence import Evidence
from pmexp_analysis.numbers.margins import Margin, margin_of
from pmexp_analysis.numbers.resampling import bootstrap_intervals
from pmexp_analysis.numbers.scores import is_exact
from pmexp_analysis.numbers.stats import Array
from pmexp_analysis.numbers.trainings import is_result
from pmexp_analysis.numbers.values import BySeed, SectionValues, values_of

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
    one seed, with 95 % intervals; the Welch test and `probability_greater` take every seed of either side.
    `missing_seeds` names, for the sides "variant" and "baseline", the seeds that only the other side has.
    `relative_difference` is that of `scales.relative_change`, None where the pairs have no ratio.
    `holm_p` corrects `paired_p` over the protocol's family. `tost_p` is of equivalence within `margin`, where
    the protocol has one. `detectable` is the smallest difference that n such pairs would show.
    `one_training_with` names the variant that is the same training, where the metric follows from the
    training: the two are counted once."""

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
    relative_low: float | None = None
    relative_high: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    paired_t: float | None = None
    paired_p: float | None = None
    welch_t: float | None = None
    welch_p: float | None = None
    holm_p: float | None = None
    margin: str = ""
    tost_p: float | None = None
    effect_size: float | None = None
    probability_greater: float | None = None
    detectable: float | None = None
    verdict: stats.Verdict = "not comparable"
    note: str = ""
    one_training_with: str = ""


def rows(finals: pd.DataFrame) -> list[Row]:
    """One Row per (task, system, metric, variant), sorted so."""
    return [
        _row(section, metric, variant)
        for section in values_of(finals)
        for metric in section.metrics
        for variant in sorted(section.metrics[metric].by_variant)
    ]


def _row(section: SectionValues, metric: str, variant: str) -> Row:
    values = section.metrics[metric]
    every, finite = values.by_variant[variant], values.finite(variant)
    sample = stats.describe(np.array(list(finite.values())))
    return Row(
        task=section.task,
        system=section.system,
        variant=variant,
        metric=metric,
        unit=values.unit,
        direction=values.direction,
        n=sample.n,
        seeds=sorted(finite),
        not_finite_seeds=sorted(every.keys() - finite.keys()),
        mean=sample.mean,
        std=sample.std,
        min=sample.min,
        max=sample.max,
    )


def comparisons(
    finals: pd.DataFrame,
    protocol: ProtocolConfig,
    exact: Collection[str] = (),
    evidence: Evidence = Evidence(),  # noqa: B008  frozen
) -> list[Comparison]:
    """Every variant against the protocol's baseline in every metric, with Holm's correction and the verdict.

    `exact`: metrics that are counted in these runs beside those that the catalog says.
    `evidence`: which pairs count, which trainings are proven to be the same and which are to be counted once.
    """
    made: list[Comparison] = []
    differences: list[Array] = []
    left_out: list[int] = []
    for section in values_of(finals):
        for metric, values in section.metrics.items():
            margin = margin_of(protocol, section.task, metric, list(section.metrics))
            shared: dict[str, Any] = {
                "task": section.task,
                "system": section.system,
                "metric": metric,
                "baseline": protocol.baseline,
                "unit": values.unit,
                "direction": values.direction,
            }
            counted = metric in exact or is_exact(metric)
            base = values.finite(protocol.baseline)
            for variant in sorted(values.by_variant.keys() - {protocol.baseline}):
                place = (section.task, section.system, variant)
                apart = evidence.apart(place, metric)
                own, theirs = (_without(side, apart) for side in (values.finite(variant), base))
                one, difference = compare(own, theirs, margin, counted, variant=variant, **shared)
                made.append(_with_evidence(one, evidence, sorted(own.keys() & theirs.keys())))
                differences.append(difference)
                left_out.append(len(apart))
    judged = _judged(_with_bootstrap(made, differences), protocol.family, exact)
    return [_with_remarks(one, apart) for one, apart in zip(judged, left_out, strict=True)]


def _without(values: BySeed, seeds: Collection[int]) -> BySeed:
    return {seed: value for seed, value in values.items() if seed not in seeds} if seeds else values


def _with_evidence(one: Comparison, evidence: Evidence, seeds: Sequence[int]) -> Comparison:
    """The comparison with what is known of the trainings behind it, where the metric follows from them."""
    if not is_result(one.metric):
        return one
    place = (one.task, one.system, one.variant)
    proven = one.verdict == "equal" and evidence.is_proven(place, seeds)
    verdict = "identical" if proven else one.verdict
    return replace(one, verdict=verdict, one_training_with=evidence.one_training_with(place))


def compare(
    variant_of: Mapping[int, float],
    baseline_of: Mapping[int, float],
    margin: Margin | None,
    counted: bool = False,
    **labels: Any,
) -> tuple[Comparison, Array]:
    """The pairs of two seed -> value as a Comparison that is not judged yet, and their differences."""
    seeds = sorted(variant_of.keys() & baseline_of.keys())
    missing = {
        "variant": sorted(baseline_of.keys() - variant_of.keys()),
        "baseline": sorted(variant_of.keys() - baseline_of.keys()),
    }
    ours, theirs = (np.array([of[seed] for seed in seeds]) for of in (variant_of, baseline_of))
    if not seeds:
        return Comparison(**labels, n=0, missing_seeds=missing, note="no seed has runs of both"), ours
    all_ours, all_theirs = (np.array(list(of.values())) for of in (variant_of, baseline_of))
    welch = stats.welch_t(all_ours, all_theirs)
    if margin is not None:
        labels |= {"margin": margin.text, "tost_p": _tost_p(margin, ours, theirs, all_theirs, counted)}
    return Comparison(
        **labels,
        n=len(seeds),
        missing_seeds=missing,
        welch_t=welch.t,
        welch_p=welch.p,
        probability_greater=stats.probability_greater(all_ours, all_theirs),
        **_of_pairs(ours, theirs),
    ), ours - theirs


def _of_pairs(ours: Array, theirs: Array) -> dict[str, Any]:
    """The fields that pairs of one seed give (shape (n,) each, n >= 1)."""
    differences = ours - theirs
    difference = float(differences.mean())
    means: dict[str, Any] = {
        "mean_difference": difference,
        "relative_difference": scales.relative_change(ours, theirs),
    }
    if relative := scales.relative_interval(ours, theirs):
        means |= {"relative_low": relative[0], "relative_high": relative[1]}
    if not differences.any():
        span = 0.0 if differences.size > 1 else None
        return {**means, "ci_low": span, "ci_high": span, "verdict": "equal"}
    if stats.constant_difference(ours, theirs):
        return {**means, "ci_low": difference, "ci_high": difference, "note": CONSTANT}
    paired, interval = stats.paired_t(differences), stats.t_interval(differences)
    return {
        **means,
        "ci_low": interval[0] if interval else None,
        "ci_high": interval[1] if interval else None,
        "paired_t": paired.t,
        "paired_p": paired.p,
        "effect_size": stats.effect_size(differences),
        "detectable": stats.detectable_difference(differences),
        "note": "one pair: no test" if differences.size == 1 else "",
    }


def _tost_p(margin: Margin, ours: Array, theirs: Array, all_theirs: Array, counted: bool) -> float | None:
    """The p of equivalence, None where its scale is undefined; of a counted metric one pair is enough."""
    try:
        if margin.statistic is Statistic.difference_in_sigma:
            return sigmas.tost(ours - theirs, all_theirs, margin.threshold)
        sample = scales.sample(margin.statistic, ours, theirs, stats.describe(all_theirs).std)
    except scales.Undefined:
        return None
    low, high = (scales.tested(margin.statistic, side * margin.threshold) for side in (-1, 1))
    if counted and sample.size == 1:
        return 0.0 if low <= sample[0] <= high else 1.0
    return stats.tost(sample, low, high)


def _with_bootstrap(made: list[Comparison], differences: list[Array]) -> list[Comparison]:
    intervals = bootstrap_intervals(differences)
    return [
        replace(one, bootstrap_low=interval[0], bootstrap_high=interval[1]) if interval else one
        for one, interval in zip(made, intervals, strict=True)
    ]


def _with_remarks(one: Comparison, apart: int) -> Comparison:
    """The comparison with a note on what is not counted in it; `apart`: so many pairs ran unlike."""
    notes = [one.note] if one.n or not apart else []
    notes += [f"{said_number(apart, 'pair')} excluded: run under different conditions"] if apart else []
    notes += [f"same training as {one.one_training_with}, counted once"] if one.one_training_with else []
    note = "; ".join(filter(None, notes))
    return one if note == one.note else replace(one, note=note)


def _judged(uncorrected: list[Comparison], family: Family, exact: Collection[str]) -> list[Comparison]:
    """Corrects every family by Holm's method. One training of several variants is in its family once."""
    at = {(one.task, one.system, one.metric, one.variant): place for place, one in enumerate(uncorrected)}
    families: dict[tuple[str, ...], list[int]] = defaultdict(list)
    followers: dict[int, int] = {}  # place -> that of the variant which stands for it
    for place, one in enumerate(uncorrected):
        key = {Family.metric: (one.metric,), Family.task: (one.task, one.system), Family.experiment: ()}
        leader = at.get((one.task, one.system, one.metric, one.one_training_with))
        if leader is None:
            families[key[family]].append(place)
        else:
            followers[place] = leader
    holm_p: dict[int, float | None] = {}
    for places in families.values():
        corrected = stats.holm([uncorrected[place].paired_p for place in places])
        holm_p |= dict(zip(places, corrected, strict=True))
    for place, leader in followers.items():  # of fewer seeds it is no test of its own
        same = uncorrected[place].paired_p == uncorrected[leader].paired_p
        holm_p[place] = holm_p[leader] if same else None
    return [
        _with_verdict(one, holm_p[place], one.metric in exact or is_exact(one.metric))
        for place, one in enumerate(uncorrected)
    ]


def _with_verdict(one: Comparison, holm_p: float | None, exact: bool) -> Comparison:
    if one.mean_difference is None or one.verdict in ("equal", "identical"):
        return one
    enough = exact or one.n >= stats.FEWEST_PAIRS
    constant = one.note == CONSTANT or (exact and one.n == 1)
    significant = enough and (constant or (holm_p is not None and holm_p < stats.SIGNIFICANCE))
    equivalent = enough and one.tost_p is not None and one.tost_p < stats.SIGNIFICANCE
    note = one.note
    if not enough:
        note = f"{one.n} pair{'s' if one.n > 1 else ''}: at least {stats.FEWEST_PAIRS} are needed"
    elif equivalent and significant:
        note = "; ".join(filter(None, [note, "a significant difference, but within the margin"]))
    elif exact and one.n == 1:
        note = "an exact count"
    verdict = stats.verdict(one.mean_difference, one.direction, significant, equivalent)
    return replace(one, holm_p=holm_p, verdict=verdict, note=note)
