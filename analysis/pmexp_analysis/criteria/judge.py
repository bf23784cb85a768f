"""Every criterion of the protocol, judged in every task and system that it is about."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pmexp.protocol import Comparison, CriterionConfig, Statistic, has_better_end
from pmexp.run_folder.state import State
from pmexp_analysis.criteria.growth import judge_growth
from pmexp_analysis.criteria.limits import judge_largest, judge_lone_fit
from pmexp_analysis.criteria.pairs import Sides, judge_pairs
from pmexp_analysis.criteria.result import Judged, TaskResult, combined
from pmexp_analysis.criteria.runs import judge_divergence
from pmexp_analysis.numbers.fits import Limits, lone_fits
from pmexp_analysis.numbers.margins import is_about
from pmexp_analysis.numbers.scales import Undefined
from pmexp_analysis.numbers.scores import is_exact, is_score, resolve
from pmexp_analysis.numbers.series import series_over
from pmexp_analysis.numbers.values import BySeed, SectionValues, values_of
from pmexp_analysis.sources.experiment import Experiment, Member, Missing

_WITHOUT_ANSWER = [state.value for state in State if not state.is_result]


def judge(experiment: Experiment, limits: Sequence[Limits]) -> list[Judged]:
    """One Judged a criterion, in the protocol's order. A task of which runs failed or are to come, and none
    finished, counts as not measured; one that had no memory at all is an answer of its own.

    `limits`: what fits into memory.
    """
    sections = _sections(experiment)
    criteria = {name: as_judged(one) for name, one in experiment.protocol.criteria.items()}
    return [
        combined(name, criterion, list(_parts(criterion, experiment, sections, limits)))
        for name, criterion in criteria.items()
    ]


def as_judged(criterion: CriterionConfig) -> CriterionConfig:
    """Returns `criterion`, as no_worse where it says within a margin of a metric that has a better end.

    No method fails for being better; whether it is within the margin is said beside the result.
    """
    if criterion.comparison is Comparison.within and has_better_end(criterion.metric or ""):
        return replace(criterion, comparison=Comparison.no_worse)
    return criterion


def _sections(experiment: Experiment) -> list[SectionValues]:
    made = values_of(experiment.finals)
    known = {(one.task, one.system) for one in made}
    lost = {(m.labels.task, m.labels.system) for m in experiment.members if m.state in _WITHOUT_ANSWER}
    return made + [SectionValues(task, system) for task, system in sorted(lost - known)]


def _parts(
    criterion: CriterionConfig,
    experiment: Experiment,
    sections: Sequence[SectionValues],
    limits: Sequence[Limits],
) -> Iterable[TaskResult]:
    protocol, statistic = experiment.protocol, criterion.statistic
    if statistic is Statistic.only_fits:
        yield judge_lone_fit(criterion, limits, *lone_fits(experiment), protocol)
    elif statistic is Statistic.largest_ratio:
        of_setting = [one for one in limits if one.over == criterion.over and is_about(criterion, one.task)]
        yield from (judge_largest(criterion, one, protocol) for one in of_setting)
    elif statistic is Statistic.growth_exponent:
        for series in series_over(experiment.members, criterion.over or ""):
            if is_about(criterion, series.task):
                try:
                    yield judge_growth(criterion, series, criterion.metric or "", protocol)
                except Undefined as error:
                    yield TaskResult(series.task, series.system, "not measured", str(error))
    else:
        concerned = [one for one in sections if is_about(criterion, one.task)]
        if statistic is Statistic.diverged:
            yield from _divergences(criterion, concerned, experiment)
        else:
            yield from (_of_pairs(criterion, section, experiment) for section in concerned)


def _divergences(
    criterion: CriterionConfig, sections: Sequence[SectionValues], experiment: Experiment
) -> Iterable[TaskResult]:
    method = experiment.protocol.method
    runs: dict[tuple[str, str], list[Member]] = defaultdict(list)
    missing: dict[tuple[str, str], list[Missing]] = defaultdict(list)
    for member in experiment.members:
        if member.labels.variant == method:
            runs[member.labels.task, member.labels.system].append(member)
    for one in experiment.missing:
        if one.variant == method:
            missing[one.task, one.system].append(one)
    for at in ((section.task, section.system) for section in sections):
        yield judge_divergence(criterion, *at, runs[at], missing[at])


def _of_pairs(criterion: CriterionConfig, section: SectionValues, experiment: Experiment) -> TaskResult:
    sides = sides_of(criterion, section, experiment)
    if isinstance(sides, str):
        return TaskResult(section.task, section.system, "not measured", sides)
    shared = sides.method.keys() & sides.baseline.keys()
    if is_score(sides.metric) and all(sides.method[seed] == sides.baseline[seed] for seed in shared):
        sides = replace(sides, one_training=_are_one_training(experiment, sides))
    try:
        return judge_pairs(criterion, sides)
    except Undefined as error:
        return TaskResult(section.task, section.system, "not measured", str(error))


def sides_of(criterion: CriterionConfig, section: SectionValues, experiment: Experiment) -> Sides | str:
    """Returns what a criterion compares in one task and system, or in words which metric is lacking."""
    known = list(section.metrics)
    metric = resolve(criterion.metric or "", known)
    source = resolve(criterion.drop_from, known) if criterion.drop_from else None
    if metric is None or (criterion.drop_from and source is None):
        lacking = criterion.metric if metric is None else criterion.drop_from
        return f"no run records {lacking}" if known else "no run finished"
    protocol = experiment.protocol
    method, baseline = (
        _values(section, variant, metric, source) for variant in (protocol.method, protocol.baseline)
    )
    counted = metric in experiment.counted or is_exact(metric)
    return Sides(section.task, section.system, method, baseline, metric, counted)


def _are_one_training(experiment: Experiment, sides: Sides) -> bool:
    """Whether the two runs of each pair have the same training losses at the same steps."""
    losses: dict[tuple[str, int], dict[float, float]] = {}
    for member in experiment.members:
        at, curve = member.labels, member.run.curve
        if (at.task, at.system) == (sides.task, sides.system):
            points = zip(curve.metrics, curve.steps, curve.values, strict=True)
            losses[at.variant, at.seed] = {step: v for metric, step, v in points if metric == "train/loss"}
    method, baseline = experiment.protocol.method, experiment.protocol.baseline
    return all(
        losses.get((method, seed)) and losses[method, seed] == losses.get((baseline, seed))
        for seed in sides.method.keys() & sides.baseline.keys()
    )


def _values(section: SectionValues, variant: str, metric: str, source: str | None) -> BySeed:
    """seed -> value; with `source` the drop from that metric to `metric`."""
    values = section.metrics[metric].finite(variant)
    if source is None:
        return values
    before = section.metrics[source].finite(variant)
    return {seed: before[seed] - value for seed, value in values.items() if seed in before}
