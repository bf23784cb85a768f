"""The statistics of many comparisons at once: those of one size are one array, a row a comparison."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pmexp.protocol import Statistic
from pmexp_analysis.numbers import scales, sigmas, stats
from pmexp_analysis.numbers.margins import Margin
from pmexp_analysis.numbers.resampling import bootstrap_intervals
from pmexp_analysis.numbers.stats import Array, Mask
from pmexp_analysis.sources.values import BySeed


class PairedValues(NamedTuple):
    """What one comparison is computed from: finite values by seed, and the `seeds` that both sides have.

    `counted`: whether one pair has all there is to know of the metric. `scored`: whether it is a sampled
    score, which comes in steps."""

    variant: BySeed
    baseline: BySeed
    seeds: list[int]
    margin: Margin | None
    counted: bool
    scored: bool = False

    @property
    def correction(self) -> float:
        """That of the mean's ends, for the steps of scores."""
        if not self.scored:
            return 0.0
        return stats.half_step(np.array([*self.variant.values(), *self.baseline.values()]), len(self.seeds))


def statistics(sides: Sequence[PairedValues]) -> list[dict[str, Any]]:
    """For each of `sides` its statistics by the names of the fields of a Comparison, None where one is not
    defined; without a pair there is none. Also `is_equal` and `is_constant`, of the differences."""
    fields: list[dict[str, Any]] = [{} for _ in sides]
    known = [place for place, one in enumerate(sides) if one.seeds]

    def fill(places: Sequence[int], columns: Mapping[str, Array | Mask]) -> None:
        plain = [  # NaN alone differs from itself
            [None if value != value else value for value in column.tolist()] for column in columns.values()
        ]
        for place, values in zip(places, zip(*plain, strict=True), strict=True):
            fields[place].update(zip(columns, values, strict=True))

    for places in alike((place, len(sides[place].seeds)) for place in known):
        fill(places, of_pairs(*_paired([sides[place] for place in places])))
    for places in alike((at, (len(sides[at].variant), len(sides[at].baseline))) for at in known):
        fill(places, of_samples(*(_every(side) for side in _both([sides[at] for at in places]))))
    in_margins = [place for place in known if sides[place].margin]
    for places in alike((place, _of_equivalence(sides[place])) for place in in_margins):
        these = [sides[place] for place in places]
        margin, counted = these[0].margin, these[0].counted
        assert margin is not None
        corrections = np.array([one.correction for one in these])
        everything = _every([one.baseline for one in these])
        tost_p = equivalence(margin, *_paired(these), everything, counted, corrections)
        fill(places, {"tost_p": tost_p})
    return fields


def alike(keyed: Iterable[tuple[int, Hashable]]) -> Iterable[list[int]]:
    """The places in groups of one key."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in keyed:
        groups[key].append(place)
    return groups.values()


def of_pairs(ours: Array, theirs: Array) -> dict[str, Array | Mask]:
    """Statistics of pairs of one seed, shape (groups, n) each with n >= 1; each of shape (groups,).

    Differences that are all zero, or all one number, are not tested.
    """
    differences = ours - theirs
    mean = differences.mean(axis=-1)
    is_equal = np.logical_not(differences.any(axis=-1))
    is_constant = np.logical_not(is_equal) & stats.constant_difference(ours, theirs)
    is_tested = np.logical_not(is_equal | is_constant)
    relative_low, relative_high = scales.relative_interval(ours, theirs)
    low, high = stats.t_interval(differences)
    of_equal = np.zeros_like(mean) if differences.shape[-1] > 1 else np.full_like(mean, np.nan)
    paired, bootstrap = stats.paired_t(differences), bootstrap_intervals(differences)
    tested = {
        "paired_t": paired.t,
        "paired_p": paired.p,
        "effect_size": stats.effect_size(differences),
        "detectable": stats.detectable_difference(differences),
    }
    return {
        "is_equal": is_equal,
        "is_constant": is_constant,
        "mean_difference": mean,
        "relative_difference": scales.relative_change(ours, theirs),
        "relative_low": relative_low,
        "relative_high": relative_high,
        "ci_low": np.select([is_equal, is_constant], [of_equal, mean], low),
        "ci_high": np.select([is_equal, is_constant], [of_equal, mean], high),
        "bootstrap_low": bootstrap[0],
        "bootstrap_high": bootstrap[1],
        **{name: np.where(is_tested, column, np.nan) for name, column in tested.items()},
    }


def of_samples(variant: Array, baseline: Array) -> dict[str, Array | Mask]:
    """Statistics of every seed of both sides, shapes (groups, n) and (groups, m); each of shape (groups,)."""
    welch = stats.welch_t(variant, baseline)
    greater = stats.probability_greater(variant, baseline)
    return {"welch_t": welch.t, "welch_p": welch.p, "probability_greater": greater}


def equivalence(
    margin: Margin, ours: Array, theirs: Array, all_theirs: Array, counted: bool, corrections: Array
) -> Array:
    """p of equivalence within `margin` of pairs, shape (groups, n) each, and all of the baseline, shape
    (groups, m). For a counted metric one pair is enough. NaN where the margin's scale is not defined.

    `corrections`: of continuity, shape (groups,), by which the mean is taken to lie further out."""
    if margin.statistic is Statistic.difference_in_sigma:
        return sigmas.tost(ours - theirs, all_theirs, margin.threshold, corrections)
    samples = scales.samples(margin.statistic, ours, theirs, stats.spread(all_theirs))
    low, high = (scales.tested(margin.statistic, side * margin.threshold) for side in (-1, 1))
    if counted and samples.shape[-1] == 1:
        one = samples[:, 0]
        return np.where(np.isnan(one), np.nan, np.where((low <= one) & (one <= high), 0.0, 1.0))
    sigma, out = stats.spread(all_theirs), corrections[:, None]
    lower, upper = (scales.samples(margin.statistic, ours + side * out, theirs, sigma) for side in (-1, 1))
    return stats.tost(lower, upper, low, high)


def _of_equivalence(one: PairedValues) -> Hashable:
    return one.margin, one.counted, len(one.seeds), len(one.baseline)


def _paired(sides: Sequence[PairedValues]) -> tuple[Array, Array]:
    """Values of the pairs, shape (sides, n) each."""
    ours, theirs = (
        np.array([[values[seed] for seed in one.seeds] for one, values in zip(sides, side, strict=True)])
        for side in _both(sides)
    )
    return ours, theirs


def _both(sides: Sequence[PairedValues]) -> tuple[list[BySeed], list[BySeed]]:
    return [one.variant for one in sides], [one.baseline for one in sides]


def _every(side: Sequence[BySeed]) -> Array:
    return np.array([list(values.values()) for values in side])
