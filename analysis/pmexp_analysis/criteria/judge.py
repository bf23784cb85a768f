"""Every criterion of the protocol, judged in every task and system that it is about."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pmexp.metrics.catalog import CORE_WAIT
from pmexp.protocol import (
    Bound,
    CriterionConfig,
    ProtocolConfig,
    Statistic,
    has_better_end,
    is_about,
    needs_learning,
)
from pmexp.run_folder.state import State
from pmexp_analysis.criteria.absent import where_present
from pmexp_analysis.criteria.byte_masks import values_with_byte_masks
from pmexp_analysis.criteria.estimates import Sides, is_alone
from pmexp_analysis.criteria.growth import judge_growth
from pmexp_analysis.criteria.limits import judge_largest, judge_lone_fit
from pmexp_analysis.criteria.lost import lacking_method, lost_runs
from pmexp_analysis.criteria.pairs import judge_pairs
from pmexp_analysis.criteria.result import Judged, TaskResult, combined, named_once
from pmexp_analysis.criteria.runs import judge_divergence
from pmexp_analysis.criteria.unchanged import judge_unchanged
from pmexp_analysis.criteria.waiting import shares_along, shares_in, where_fed, where_idle
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.numbers.evidence import Evidence, evidence_of
from pmexp_analysis.numbers.fits import Limits, lone_fits
from pmexp_analysis.numbers.scales import Undefined
from pmexp_analysis.numbers.scores import is_exact, resolve
from pmexp_analysis.numbers.series import Series, series_over
from pmexp_analysis.numbers.trainings import are_same, place_of
from pmexp_analysis.sources.experiment import Experiment, Labels, Member, Missing
from pmexp_analysis.sources.values import BySeed, SectionValues

_WITHOUT_ANSWER = [state.value for state in State if not state.is_result]


def judge(experiment: Experiment, limits: Sequence[Limits], evidence: Evidence | None = None) -> list[Judged]:
    """Returns a Judged for each criterion, in the protocol's order.

    A task of which runs failed or are to come, and none finished, counts as not measured; one that had no
    memory at all is an answer of its own.

    `limits`: what fits into memory. `evidence`: of the experiment, where it is known already.
    """
    sections, evidence = _sections(experiment), evidence or evidence_of(experiment)
    criteria = {name: as_judged(one) for name, one in experiment.protocol.criteria.items()}
    judged = []
    for name, criterion in criteria.items():
        parts = _parts(criterion, experiment, sections, limits, evidence)
        judged.append(
            combined(name, criterion, [where_present(part, criterion, experiment) for part in parts])
        )
    return named_once(judged)


def as_judged(criterion: CriterionConfig) -> CriterionConfig:
    """Returns `criterion`, as no_worse where it says within a margin of a metric that has a better end.

    No method fails for being better; whether it is within the margin is said beside the result.
    """
    if criterion.comparison is Bound.within and has_better_end(criterion.metric or ""):
        return replace(criterion, comparison=Bound.no_worse)
    return criterion


def _sections(experiment: Experiment) -> list[SectionValues]:
    made = experiment.values
    known = {(one.task, one.system) for one in made}
    lost = {(m.labels.task, m.labels.system) for m in experiment.members if m.state in _WITHOUT_ANSWER}
    return made + [SectionValues(task, system) for task, system in sorted(lost - known)]


def _parts(
    criterion: CriterionConfig,
    experiment: Experiment,
    sections: Sequence[SectionValues],
    limits: Sequence[Limits],
    evidence: Evidence,
) -> Iterator[TaskResult]:
    if not needs_learning(criterion):
        evidence = evidence.for_costs()
    concerned = [one for one in sections if is_about(criterion, one.task)]
    protocol = experiment.protocol
    sides = list(dict.fromkeys((protocol.baseline, protocol.method)))
    match criterion.statistic:
        case Statistic.only_fits:
            yield _lone_fit(criterion, experiment, limits, evidence, sides)
        case Statistic.largest_ratio:
            for one in limits:
                if one.over == criterion.over and is_about(criterion, one.task):
                    part = judge_largest(criterion, one, protocol)
                    yield _where_learned(part, _unlearned_places(one, evidence), sides, evidence)
        case Statistic.growth_exponent:
            for series in series_over(experiment.members, criterion.over or ""):
                if is_about(criterion, series.task):
                    yield _growth(criterion, series, protocol, evidence, sides)
        case Statistic.diverged:
            for part in _divergences(criterion, concerned, experiment):
                yield _where_learned(part, [(part.task, part.system)], sides, evidence)
        case Statistic.unchanged:
            baseline = sides[:1]  # the other side is no method
            for at in concerned:
                part = judge_unchanged(criterion, at.task, at.system, experiment, evidence)
                yield _where_learned(part, [(at.task, at.system)], baseline, evidence)
        case _:
            for part in _of_pairs(criterion, concerned, experiment, evidence):
                yield _where_learned(part, [(part.task, part.system)], sides, evidence)


def _lone_fit(
    criterion: CriterionConfig,
    experiment: Experiment,
    limits: Sequence[Limits],
    evidence: Evidence,
    sides: Sequence[str],
) -> TaskResult:
    lone = lone_fits(experiment)
    part = judge_lone_fit(criterion, limits, lone, experiment.protocol)
    judged_at: list[Limits | Labels] = [*lone.fitting, *(one for one in limits if one.how != "run")]
    places = {at for one in judged_at for at in _unlearned_places(one, evidence)}
    return _where_learned(part, [at for at in places if is_about(criterion, at[0])], sides, evidence)


def _growth(
    criterion: CriterionConfig,
    series: Series,
    protocol: ProtocolConfig,
    evidence: Evidence,
    sides: Sequence[str],
) -> TaskResult:
    metric = criterion.metric or ""
    members = [(at, m) for at, m in series.members if not _is_apart(m, metric, evidence)]
    alike = replace(series, members=members)
    try:
        part = judge_growth(criterion, alike, metric, protocol)
        part = where_fed(part, metric, shares_along(alike, sides))
    except Undefined as error:
        return TaskResult(series.task, series.system, "not measured", str(error))
    places = {(m.labels.task, m.labels.system) for _, m in series.members}
    return _where_learned(part, places, sides, evidence)


def _where_learned(
    part: TaskResult, places: Iterable[tuple[str, str]], variants: Sequence[str], evidence: Evidence
) -> TaskResult:
    """Returns `part`, inconclusive in the place of passed where a model of these variants never learned."""
    said = [line for at in sorted(places) for line in evidence.unlearned_of(*at, variants)]
    return _not_passed(part, "; ".join(said))


def _not_passed(part: TaskResult, objection: str) -> TaskResult:
    """Returns `part`, inconclusive in the place of passed where there is an objection."""
    if part.result != "pass" or not objection:
        return part
    return replace(part, result="inconclusive", why=f"{part.why}; but {objection}")


def _unlearned_places(judged: Limits | Labels, evidence: Evidence) -> set[tuple[str, str]]:
    """Where models of the same architecture, data and system never learned, whatever their settings: an
    answer of pmexp.fit trains none itself."""
    words = judged.task.partition(" ")[0]
    return {
        (task, system)
        for task, system, _ in evidence.unlearned
        if task.partition(" ")[0] == words and system == judged.system
    }


def _is_apart(member: Member, metric: str, evidence: Evidence) -> bool:
    return member.labels.seed in evidence.apart(place_of(member), metric)


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


def _of_pairs(
    criterion: CriterionConfig, sections: Sequence[SectionValues], experiment: Experiment, evidence: Evidence
) -> Iterable[TaskResult]:
    every_side = [sides_of(criterion, section, experiment, evidence) for section in sections]
    known = [(sides, at) for sides, at in zip(every_side, sections, strict=True) if isinstance(sides, Sides)]
    sides_known, places = [sides for sides, _ in known], [section for _, section in known]
    protocol = experiment.protocol
    with_byte_masks = values_with_byte_masks(criterion, sides_known, places, protocol.baseline)
    judged = zip(judge_pairs(criterion, sides_known), with_byte_masks, strict=True)
    lost = lost_runs(experiment)
    for section, sides in zip(sections, every_side, strict=True):
        if isinstance(sides, str):
            yield TaskResult(section.task, section.system, "not measured", sides)
            continue
        part, value = next(judged)
        part = replace(part, value_with_byte_masks=value)
        if sides.apart:
            left_out = f"{seeds_said(sides.apart)} excluded: run under different conditions"
            is_lost = part.result == "not measured" and not sides.method
            part = replace(part, why=left_out if is_lost else f"{part.why}; {left_out}")
        variants = [protocol.method] if is_alone(criterion) else [protocol.method, protocol.baseline]
        part = _not_passed(part, lacking_method(criterion, sides, section, experiment, lost))
        if not sides.exact:
            part = _not_passed(part, _repeated(sides, variants, evidence))
            part = _not_passed(part, _mixed(criterion, sides, protocol, evidence))
        if is_alone(criterion):
            part = where_idle(part, sides.metric, shares_in(section, variants, CORE_WAIT))
        yield where_fed(part, sides.metric, shares_in(section, variants))


def _repeated(sides: Sides, variants: Sequence[str], evidence: Evidence) -> str:
    """Says which seeds of the `variants`, method and baseline, are one sample taken twice; else nothing."""
    values = dict(zip(variants, (sides.method, sides.baseline), strict=False))
    places = ((sides.task, sides.system, variant) for variant in variants)
    return "; ".join(filter(None, (evidence.repeated_in(at, values[at[2]]) for at in places)))


def _mixed(criterion: CriterionConfig, sides: Sides, protocol: ProtocolConfig, evidence: Evidence) -> str:
    """Says in what those runs differ whose mean or standard deviation `criterion` is about; else nothing."""
    at = (sides.task, sides.system)
    said = [evidence.mixed_in((*at, protocol.method), sides.method)] if is_alone(criterion) else []
    if criterion.statistic is Statistic.difference_in_sigma:
        said.append(evidence.mixed_in((*at, protocol.baseline), sides.baseline))
    return "; ".join(filter(None, said))


def sides_of(
    criterion: CriterionConfig, section: SectionValues, experiment: Experiment, evidence: Evidence
) -> Sides | str:
    """Returns what a criterion compares in one task and system, or in words which metric is lacking."""
    known = list(section.metrics)
    metric = resolve(criterion.metric or "", known)
    source = resolve(criterion.drop_from, known) if criterion.drop_from else None
    if metric is None or (criterion.drop_from and source is None):
        lacking = criterion.metric if metric is None else criterion.drop_from
        return f"no run records {lacking}" if known else "no run finished"
    protocol = experiment.protocol
    if protocol.method == protocol.baseline and not is_alone(criterion):
        return f"method and baseline are both {protocol.method}, and a run shows nothing beside itself"
    method, baseline = (
        _values(section, variant, metric, source) for variant in (protocol.method, protocol.baseline)
    )
    apart: set[int] = set()
    place = (section.task, section.system, protocol.method)
    if not is_alone(criterion):
        apart = evidence.apart(place, *filter(None, (metric, source))) & method.keys() & baseline.keys()
    method, baseline = ({s: v for s, v in side.items() if s not in apart} for side in (method, baseline))
    counted = metric in experiment.counted or is_exact(metric)
    base = (section.task, section.system, protocol.baseline)
    trainings = [evidence.trainings.get(at, {}) for at in (place, base)]
    return Sides(
        section.task, section.system, method, baseline, metric, counted, are_same(*trainings), sorted(apart)
    )


def _values(section: SectionValues, variant: str, metric: str, source: str | None) -> BySeed:
    """seed -> value; with `source` the drop from that metric to `metric`."""
    values = section.metrics[metric].finite(variant)
    if source is None:
        return values
    before = section.metrics[source].finite(variant)
    return {seed: before[seed] - value for seed, value in values.items() if seed in before}
