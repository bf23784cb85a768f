"""`protocol.*`: what an experiment asks and when its answer is yes, written down before it runs.

A run keeps the protocol that it was started under, and the report judges by it. No part of a run's identity.
Imports neither torch nor hydra: configuration and analysis share it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of
from pmexp.own_code import check_import_path, described

# What a metric of these sections is follows from the training alone; all else is measured again in each run.
OF_TRAINING = ("train/", "val/", "test/", "ood/", "fgsm/", "grad/")
SCORES = ("score", "test/score", "val/score", "ood/score", "fgsm/score")


class ComparedLabel(Enum):
    """Says what is compared, everything else being equal. An arm is a variant with its system stack."""

    variant = "variant"
    system = "system"
    arm = "arm"


class Family(Enum):
    """Says over which comparisons Holm's correction goes."""

    metric = "metric"  # all of one metric in the experiment
    task = "task"  # all of one task and system
    experiment = "experiment"  # all


class Statistic(Enum):
    """Says what of a metric is judged; "reference" is the baseline, or the number `against`."""

    mean = "mean"  # the method's, in the metric's unit
    times_smaller = "times_smaller"  # reference / method
    relative_change = "relative_change"  # method / reference - 1
    difference = "difference"  # method - reference, in the metric's unit
    difference_in_sigma = "difference_in_sigma"  # the same over the baseline's standard deviation over seeds
    p_worse = "p_worse"  # one-sided paired t-test that the method is worse than the baseline
    unchanged = "unchanged"  # runs with the baseline's own masks that are not its training, bit for bit
    diverged = "diverged"  # runs of the method whose loss or score is not finite
    growth_exponent = "growth_exponent"  # k in: saving of the metric proportional to (setting `over`)^k
    largest_ratio = "largest_ratio"  # the largest `over` that fits into memory: method / baseline
    only_fits = "only_fits"  # settings that fit with the method and not with the baseline
    own = "own"  # numbers that `function` makes of the pairs (method, baseline), one each


class Bound(Enum):
    """Says on which side of its threshold a criterion's value has to lie."""

    at_least = "at_least"
    at_most = "at_most"
    within = "within"  # -threshold to threshold: equivalence, by two one-sided tests
    no_worse = "no_worse"  # than the reference by more than the threshold: non-inferiority, by one of them


@dataclass(frozen=True)
class _Thresholds:
    """Those that can be meant: below them a claim cannot be met or is met by all, and above them too."""

    low: float
    high: float = math.inf
    has_low: bool = False  # `low` itself is one

    def __contains__(self, threshold: float) -> bool:
        return (self.low < threshold or (self.has_low and threshold == self.low)) and threshold <= self.high

    def __str__(self) -> str:
        low = f"{'at least' if self.has_low else 'above'} {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


MARGINS = (Bound.within, Bound.no_worse)
EQUIVALENCE = (Statistic.relative_change, Statistic.difference, Statistic.difference_in_sigma)
_OF_RUNS = {  # no metric
    Statistic.unchanged,
    Statistic.diverged,
    Statistic.largest_ratio,
    Statistic.only_fits,
}
_AGAINST = {Statistic.times_smaller, Statistic.p_worse, *EQUIVALENCE}
_OF_PAIRS = {Statistic.mean, *_AGAINST, Statistic.own}
_NEVER_NEGATIVE = ("memory/", "speed/")
_OVER = {Statistic.growth_exponent, Statistic.largest_ratio}
_COUNT = {Bound.at_most: _Thresholds(0, has_low=True), Bound.at_least: _Thresholds(0)}
_RATIO = {Bound.at_most: _Thresholds(0), Bound.at_least: _Thresholds(0)}
_THRESHOLDS = {
    Statistic.relative_change: {
        Bound.at_most: _Thresholds(-1, 1, has_low=True),
        Bound.at_least: _Thresholds(-1),
        Bound.within: _Thresholds(0, 1),
        Bound.no_worse: _Thresholds(0, 1),
    },
    Statistic.times_smaller: _RATIO,
    Statistic.largest_ratio: _RATIO,
    Statistic.p_worse: {Bound.at_most: _Thresholds(0, 1), Bound.at_least: _Thresholds(0, 1)},
    Statistic.unchanged: _COUNT,
    Statistic.diverged: _COUNT,
    Statistic.only_fits: _COUNT,
}


@dataclass(kw_only=True)
class CriterionConfig:
    """States one claim. It passes where the 90 % interval of the statistic lies on the allowed side (5 % a
    side), fails where it lies on the other, and is inconclusive between."""

    claim: str = ""  # in words
    statistic: Statistic = Statistic.mean
    metric: str | None = (
        None  # a name of the catalog; score, or <split>/score, is the task's main metric there
    )
    comparison: Bound = Bound.at_most
    function: str | None = None  # mypkg.my_statistic, of statistic=own
    threshold: float = 0.0  # relative_change: a fraction
    against: float | None = None  # a number in the place of the baseline's
    drop_from: str | None = None  # judge the drop from this metric to `metric` in place of `metric`
    over: str | None = None  # a key of the run, such as dataset.max_length
    tasks: list[str] = field(default_factory=lambda: ["*"])  # patterns of <model>/<dataset>


@dataclass(kw_only=True)
class ProtocolConfig:
    """Holds what an experiment asks, whom it compares and the criteria that judge the answer."""

    question: str = ""  # what the experiment is to answer
    axis: ComparedLabel = ComparedLabel.variant
    baseline: str = "baseline"  # what of the axis is compared with
    method: str = "pm-drop"  # what of the axis the criteria judge
    family: Family = Family.metric
    learning: bool = True  # false: runs too short to learn; then memory and speed are judged without a score
    criteria: dict[str, CriterionConfig] = field(default_factory=dict)  # by name

    def __post_init__(self) -> None:
        """Raises UserError for a criterion that could never be judged."""
        for name, criterion in self.criteria.items():
            _check(f"protocol.criteria.{name}", criterion)


def _check(key: str, criterion: CriterionConfig) -> None:
    statistic = criterion.statistic
    if (criterion.metric is None) != (statistic in _OF_RUNS):
        needed = "is about runs: leave metric out" if criterion.metric else "needs a metric"
        raise UserError(f"{key}.metric: {criterion.metric}; statistic={statistic.name} {needed}")
    for name, metric in (("metric", criterion.metric), ("drop_from", criterion.drop_from)):
        if metric is not None and metric not in SCORES:
            try:
                metric_of(metric)
            except KeyError:
                raise UserError(
                    f"{key}.{name}: {metric!r} is no metric; allowed are {', '.join(SCORES)} and the names "
                    "in src/pmexp/metrics/catalog.py"
                ) from None
    if (criterion.over is None) == (statistic in _OVER):
        said = (
            "needs over=<a numeric key of the run>" if criterion.over is None else "has no over: leave it out"
        )
        raise UserError(f"{key}.over: {criterion.over}; statistic={statistic.name} {said}")
    _check_margin(key, criterion)
    if (criterion.function is None) == (statistic is Statistic.own):
        said = "needs function=mypkg.my_statistic" if criterion.function is None else "has no function"
        raise UserError(f"{key}.function: {criterion.function}; statistic={statistic.name} {said}")
    if criterion.function is not None:
        check_import_path(f"{key}.function", criterion.function)
    if not math.isfinite(criterion.threshold):
        raise UserError(f"{key}.threshold: {criterion.threshold} must be a number")
    for name, given, used in (
        ("against", criterion.against, _AGAINST),
        ("drop_from", criterion.drop_from, _OF_PAIRS),
    ):
        if given is not None and statistic not in used:
            raise UserError(f"{key}.{name}: {given}; statistic={statistic.name} has no {name}: leave it out")
    if not criterion.tasks:
        raise UserError(f"{key}.tasks: [] matches no task; allowed are patterns such as 'bert-large/*'")


def _check_margin(key: str, criterion: CriterionConfig) -> None:
    said = criterion.comparison.name
    if criterion.comparison not in MARGINS:
        return
    if criterion.statistic not in EQUIVALENCE:
        allowed = ", ".join(each.name for each in EQUIVALENCE)
        raise UserError(
            f"{key}.comparison: {said}; statistic={criterion.statistic.name} has no margin, {allowed} have"
        )
    if not criterion.threshold > 0:
        raise UserError(f"{key}.threshold: {criterion.threshold} must be above 0 for comparison={said}")
    if criterion.comparison is Bound.no_worse and not has_better_end(criterion.metric or ""):
        raise UserError(f"{key}.comparison: no_worse; {criterion.metric} has no better end: use within")


def check_written(protocol: ProtocolConfig, task: str = "", metrics: Sequence[str] = ()) -> None:
    """Raises UserError for a threshold that cannot be meant, since no method could meet the claim or none
    miss it, and for a function in a module that is not there.

    For a protocol that is being written: a run that was started under such a one keeps it.

    task: <model>/<dataset>, where a score is one of `metrics`, those of that dataset.
    """
    for name, criterion in protocol.criteria.items():
        if criterion.function is not None:
            described(f"protocol.criteria.{name}.function", criterion.function)
        meant = _THRESHOLDS.get(criterion.statistic, {}).get(criterion.comparison)
        may_turn = criterion.drop_from is not None  # a drop may become a rise, by any factor
        if meant is not None and not may_turn and criterion.threshold not in meant:
            is_change = criterion.statistic is Statistic.relative_change
            unit = "; it is a fraction, so that 0.05 is 5 %" if is_change else ""
            raise UserError(
                f"protocol.criteria.{name}.threshold: {criterion.threshold:g} must be {meant} for "
                f"statistic={criterion.statistic.name}, comparison={criterion.comparison.name}{unit}"
            )
        _check_reach(f"protocol.criteria.{name}", criterion, task, metrics)


def _check_reach(key: str, criterion: CriterionConfig, task: str, metrics: Sequence[str]) -> None:
    """Raises UserError where the claim of `criterion` is empty, whichever metric of a task it means."""
    metric = criterion.metric or ""
    if not metric:
        return
    named = [metric]
    if metric in SCORES:
        split = metric.rpartition("/")[0] or "test"
        scores = [f"{split}/{name}" for name in metrics if is_about(criterion, task)]
        named = [score for score in scores if metric_of(score).direction == "max"]
    said = [emptiness(criterion, each) for each in named]
    if said and all(said):
        raise UserError(
            f"{key}.threshold: {criterion.threshold:g}; {said[0]}; choose one that can be missed and met"
        )


def is_about(criterion: CriterionConfig, task: str) -> bool:
    """Whether a criterion's patterns take in `task`, a label: <model>/<dataset>, then settings if any."""
    return any(fnmatchcase(task.partition(" ")[0], pattern) for pattern in criterion.tasks)


def emptiness(criterion: CriterionConfig, metric: str) -> str:
    """Says why a claim on `metric` says nothing, if it does: its statistic cannot be on one side of the
    threshold."""
    low, high = _reach(criterion, metric)
    threshold, bound = criterion.threshold, criterion.comparison
    if bound is Bound.at_least:
        cannot_fail, cannot_pass = threshold <= low, threshold > high
    elif bound is Bound.at_most:
        cannot_fail, cannot_pass = threshold >= high, threshold < low
    elif bound is Bound.no_worse:
        more_is_better = (metric_of(metric).direction == "max") == (criterion.drop_from is None)
        cannot_fail, cannot_pass = threshold >= (-low if more_is_better else high), False
    else:
        cannot_fail, cannot_pass = threshold >= max(-low, high), False
    if not (cannot_fail or cannot_pass):
        return ""
    what = f"the {criterion.statistic.name} of {metric} is from {low:g} to {high:g}"
    return f"{what}, so that {bound.name} {threshold:g} cannot {'fail' if cannot_fail else 'be met'}"


def _reach(criterion: CriterionConfig, metric: str) -> tuple[float, float]:
    """The lowest and the highest that a criterion's statistic of `metric` can be, as far as that is known."""
    low, high = metric_of(metric).range
    if criterion.drop_from is not None:
        low, high = low - high, high - low
    if criterion.statistic is Statistic.mean:
        return low, high
    if criterion.statistic is Statistic.relative_change and criterion.drop_from is None:
        return -1.0 if low >= 0 or metric.startswith(_NEVER_NEGATIVE) else -math.inf, math.inf
    if criterion.statistic is not Statistic.difference:
        return -math.inf, math.inf
    if criterion.against is not None:
        return low - criterion.against, high - criterion.against
    return low - high, high - low


def has_better_end(metric: str) -> bool:
    """Whether more or less of `metric`, as a criterion names it, is better; of a score one always is."""
    return metric in SCORES or metric_of(metric).direction != "none"


def needs_learning(criterion: CriterionConfig) -> bool:
    """Whether a claim is about training itself, by a score, a loss or the weights, and not about its cost."""
    metric = criterion.metric or ""
    return criterion.statistic is Statistic.unchanged or metric in SCORES or metric.startswith(OF_TRAINING)
