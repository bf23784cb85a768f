"""From final values to the report's rows and comparisons."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pmexp.protocol import Family, ProtocolConfig
from pmexp.shown import counted as said_number
from pmexp_analysis.numbers import stats
from pmexp_analysis.numbers.evidence import Evidence
from pmexp_analysis.numbers.margins import margins_of
from pmexp_analysis.numbers.paired import PairedValues, alike, statistics
from pmexp_analysis.numbers.scores import is_exact, is_score, label_of, measured_with
from pmexp_analysis.numbers.trainings import is_result
from pmexp_analysis.sources.values import BySeed, MetricValues, SectionValues


@dataclass  # tens of thousands are made: a frozen one takes three times as long
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


@dataclass  # see Row
class Comparison:
    """A variant against the baseline in one metric: differences are variant - baseline over the `n` pairs of
    one seed, with 95 % intervals; the Welch test and `probability_greater` take every seed of either side.
    `missing_seeds` names, for the sides "variant" and "baseline", the seeds that only the other side has.
    `relative_difference` is that of `scales.relative_change`, None where the pairs have no ratio.
    `holm_p` corrects `paired_p` over the protocol's family. `tost_p` is of equivalence within `margin`, where
    the protocol has one. `detectable` is the smallest difference that n new pairs would show.
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


def rows(sections: Sequence[SectionValues]) -> list[Row]:
    """One Row per (task, system, metric, variant), in the order of the sections' metrics."""
    places = [
        (section, metric, variant, section.metrics[metric].finite(variant))
        for section in sections
        for metric in section.metrics
        for variant in sorted(section.metrics[metric].by_variant)
    ]
    numbers = _described([finite for _, _, _, finite in places])
    return [
        _row(section, metric, variant, finite, described)
        for (section, metric, variant, finite), described in zip(places, numbers, strict=True)
    ]


def _described(samples: Sequence[BySeed]) -> list[dict[str, float | None]]:
    """For each sample its mean, std, min and max by name; None where one is not defined."""
    described: list[dict[str, float | None]] = [dict.fromkeys(("mean", "std", "min", "max")) for _ in samples]
    for places in alike((place, len(sample)) for place, sample in enumerate(samples) if sample):
        values = np.array([list(samples[place].values()) for place in places])
        columns = {"mean": values.mean(axis=1), "min": values.min(axis=1), "max": values.max(axis=1)}
        if values.shape[1] > 1:
            columns["std"] = stats.spread(values)
        for name, column in columns.items():
            for place, number in zip(places, column.tolist(), strict=True):
                described[place][name] = number
    return described


def _row(
    section: SectionValues,
    metric: str,
    variant: str,
    finite: BySeed,
    described: Mapping[str, float | None],
) -> Row:
    values = section.metrics[metric]
    return Row(
        task=section.task,
        system=section.system,
        variant=variant,
        metric=metric,
        unit=values.unit,
        direction=values.direction,
        n=len(finite),
        seeds=sorted(finite),
        not_finite_seeds=_missing(finite.keys(), values.by_variant[variant].keys())["variant"],
        **described,
    )


class _Place(NamedTuple):
    """A comparison before its statistics: where it stands, what it is computed from, what is known of it."""

    labels: Mapping[str, Any]  # task, system, metric, variant, baseline, unit, direction
    sides: PairedValues
    exact: bool
    apart: int  # so many pairs ran under other conditions and are left out
    proven: bool  # whether the trainings of its pairs are the same bit for bit
    one_training_with: str
    measured_with: str  # the metric that says this one measurement in another unit, where it is there

    @property
    def key(self) -> tuple[str, str, str, str]:
        labels = self.labels
        return labels["task"], labels["system"], labels["metric"], labels["variant"]

    @property
    def leader(self) -> tuple[str, str, str, str]:
        """The key of the comparison that counts in the place of this one; its own where it counts."""
        task, system, metric, variant = self.key
        return (task, system, self.measured_with or metric, self.one_training_with or variant)


def comparisons(
    sections: Sequence[SectionValues],
    protocol: ProtocolConfig,
    exact: Collection[str] = (),
    evidence: Evidence = Evidence(),  # noqa: B008  frozen
) -> list[Comparison]:
    """Every variant against the protocol's baseline in every metric, with Holm's correction and the verdict.

    `exact`: metrics that are counted in these runs beside those that the catalog says.
    `evidence`: which pairs count, which trainings are proven to be the same and which are to be counted once.
    """
    places = [place for section in sections for place in _places(section, protocol, exact, evidence)]
    computed = statistics([place.sides for place in places])
    holm_ps = _corrected(places, [one.get("paired_p") for one in computed], protocol.family)
    return [_comparison(*each) for each in zip(places, computed, holm_ps, strict=True)]


def _places(
    section: SectionValues, protocol: ProtocolConfig, exact: Collection[str], evidence: Evidence
) -> Iterator[_Place]:
    baseline = protocol.baseline
    margins = margins_of(protocol, section.task, list(section.metrics))
    for metric, values in section.metrics.items():
        counted = metric in exact or is_exact(metric)
        scored = is_score(metric) and not counted
        follows = is_result(metric)  # from the training
        other = measured_with(metric)
        first = section.metrics.get(other)
        base = values.finite(baseline)
        of_metric = {"task": section.task, "system": section.system, "metric": metric, "baseline": baseline}
        of_metric |= {"unit": values.unit, "direction": values.direction}
        for variant in sorted(values.by_variant.keys() - {baseline}):
            at = (section.task, section.system, variant)
            apart = evidence.apart(at, metric)
            own, theirs = (_without(side, apart) for side in (values.finite(variant), base))
            seeds = sorted(own.keys() & theirs.keys())
            is_repeated = first is not None and _has_pairs(first, variant, baseline, seeds)
            yield _Place(
                labels=of_metric | {"variant": variant},
                sides=PairedValues(own, theirs, seeds, margins.get(metric), counted, scored),
                exact=counted,
                apart=len(apart),
                proven=follows and evidence.is_proven(at, seeds),
                one_training_with=evidence.one_training_with(at) if follows else "",
                measured_with=other if is_repeated else "",
            )


def _has_pairs(values: MetricValues, variant: str, baseline: str, seeds: Sequence[int]) -> bool:
    """Whether both sides have a finite value of all of these seeds."""
    return all(values.finite(side).keys() >= set(seeds) for side in (variant, baseline))


def _without(values: BySeed, seeds: Collection[int]) -> BySeed:
    return {seed: value for seed, value in values.items() if seed not in seeds} if seeds else values


def _corrected(
    places: Sequence[_Place], paired_ps: Sequence[float | None], family: Family
) -> list[float | None]:
    """Corrects every family by Holm's method. One training of several variants is in its family once, and so
    is one measurement in several units."""
    names = {Family.metric: ("metric",), Family.task: ("task", "system"), Family.experiment: ()}[family]
    is_any_led = any(one.one_training_with or one.measured_with for one in places)
    at = {one.key: place for place, one in enumerate(places)} if is_any_led else {}
    families: dict[tuple[str, ...], list[int]] = defaultdict(list)
    followers: dict[int, int] = {}  # place -> that which stands for it
    for place, one in enumerate(places):
        leader = at.get(one.leader, place) if at else place
        if leader == place:
            families[tuple(one.labels[name] for name in names)].append(place)
        else:
            followers[place] = leader
    holm_ps: list[float | None] = [None] * len(places)
    for alike_places in families.values():
        corrected = stats.holm([paired_ps[place] for place in alike_places])
        for place, p in zip(alike_places, corrected, strict=True):
            holm_ps[place] = p
    for place, leader in followers.items():  # with fewer seeds one training is no test of its own
        is_same_test = places[place].measured_with or paired_ps[place] == paired_ps[leader]
        holm_ps[place] = holm_ps[leader] if is_same_test else None
    return holm_ps


def _comparison(place: _Place, computed: dict[str, Any], holm_p: float | None) -> Comparison:
    sides = place.sides
    own, theirs = sides.variant.keys(), sides.baseline.keys()
    is_equal, is_constant = computed.pop("is_equal", False), computed.pop("is_constant", False)
    same_training = place.proven or bool(place.one_training_with)
    settles_nothing = sides.scored and (is_equal or is_constant) and not same_training
    if settles_nothing:
        computed.pop("tost_p", None)
    verdict: stats.Verdict
    if not sides.seeds:
        verdict, note = "not comparable", "" if place.apart else "no seed has runs of both"
    elif is_equal:
        verdict, note = "identical" if place.proven else "equal", ""
    elif settles_nothing:
        verdict, note = "inconclusive", _IN_STEPS
    else:
        verdict, note = _judged(place, computed, is_constant, holm_p)
        computed["holm_p"] = holm_p
    notes = [note]
    if place.apart:
        notes.append(f"{said_number(place.apart, 'pair')} excluded: run under different conditions")
    if place.one_training_with:
        notes.append(f"same training as {place.one_training_with}, counted once")
    if place.measured_with:
        notes.append(f"one measurement with {label_of(place.measured_with)}, counted once")
    return Comparison(
        **place.labels,
        n=len(sides.seeds),
        missing_seeds=_missing(own, theirs),
        margin=sides.margin.text if sides.margin and sides.seeds else "",
        verdict=verdict,
        note="; ".join(filter(None, notes)),
        one_training_with=place.one_training_with,
        **computed,
    )


_IN_STEPS = "scores come in discrete steps: equal differences do not show how much runs vary"


def _missing(variant: Set[int], baseline: Set[int]) -> dict[str, list[int]]:
    """The seeds that each side lacks and the other has."""
    if variant == baseline:
        return {"variant": [], "baseline": []}
    return {"variant": sorted(baseline - variant), "baseline": sorted(variant - baseline)}


def _judged(
    place: _Place, computed: Mapping[str, Any], is_constant: bool, holm_p: float | None
) -> tuple[stats.Verdict, str]:
    """The verdict on pairs that are not equal, and a note on it."""
    n = len(place.sides.seeds)
    if not place.exact and n < stats.FEWEST_PAIRS:
        return "inconclusive", f"{said_number(n, 'pair')}: at least {stats.FEWEST_PAIRS} are needed"
    is_one_count, tost_p = place.exact and n == 1, computed.get("tost_p")
    significant = is_constant or is_one_count or (holm_p is not None and holm_p < stats.SIGNIFICANCE)
    equivalent = tost_p is not None and tost_p < stats.SIGNIFICANCE
    note = "constant difference" if is_constant else "one pair: no test" if n == 1 else ""
    if equivalent and significant:
        note = "; ".join(filter(None, [note, "a significant difference, but within the margin"]))
    elif is_one_count:
        note = "an exact count"
    difference, direction = computed["mean_difference"], place.labels["direction"]
    return stats.verdict(difference, direction, significant, equivalent), note
