"""Names criteria that say nothing: bounds on the wrong end of a metric, or beyond what it can be."""

from collections.abc import Iterable

from pmexp.metrics.catalog import metric_of
from pmexp.protocol import Bound, CriterionConfig, Statistic, emptiness, is_about
from pmexp_analysis.numbers.scores import label_of, resolve
from pmexp_analysis.sources.experiment import Experiment
from pmexp_analysis.sources.values import SectionValues

_GROW_WITH_THE_METRIC = (
    Statistic.mean,
    Statistic.relative_change,
    Statistic.difference,
    Statistic.difference_in_sigma,
)


def wrong_ends(experiment: Experiment) -> list[str]:
    """Returns a line for each criterion whose bound leaves a metric's worse end open, or is out of reach."""
    lines = (_said(name, one, experiment.values) for name, one in experiment.protocol.criteria.items())
    return list(filter(None, lines))


def _said(name: str, criterion: CriterionConfig, sections: Iterable[SectionValues]) -> str:
    bound = criterion.comparison
    for section in sections:
        metric = resolve(criterion.metric or "", list(section.metrics))
        if metric is None or not is_about(criterion, section.task):
            continue
        if said := emptiness(criterion, metric):
            return f"Criterion {name} says nothing: {said}."
        if bound in (Bound.at_least, Bound.at_most) and _is_open(criterion, metric):
            what = f"the drop to {label_of(metric)}" if criterion.drop_from else label_of(metric)
            better = "more" if (metric_of(metric).direction == "max") == (not criterion.drop_from) else "less"
            other = Bound.at_most if bound is Bound.at_least else Bound.at_least
            claim = f"{criterion.statistic.name} {bound.name} {criterion.threshold:g}"
            return (
                f"Criterion {name} ({claim}) is met by any method that is bad enough: {better} of {what} is "
                f"better, and {other.name} would bound its worse end."
            )
    return ""


def _is_open(criterion: CriterionConfig, metric: str) -> bool:
    """Whether the claim allows the metric, or the drop to it, to be as bad as can be."""
    direction = metric_of(metric).direction
    allows_more = criterion.comparison is Bound.at_least
    if criterion.statistic is Statistic.p_worse:
        return not allows_more and direction != "none"
    if criterion.statistic is Statistic.times_smaller:
        allows_more = not allows_more
    elif criterion.statistic not in _GROW_WITH_THE_METRIC:
        return False
    worse = "max" if criterion.drop_from else "min"  # the direction of metrics of which more is worse
    return direction == (worse if allows_more else {"min": "max", "max": "min"}[worse])
