"""Runs without a value: what holds of the runs that are left is no claim on the method."""

from collections.abc import Sequence

from pmexp.protocol import CriterionConfig, needs_learning
from pmexp.shown import counted
from pmexp_analysis.criteria.estimates import Sides
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.sources.experiment import (
    DIVERGED,
    NOT_PLANNED,
    OUT_OF_MEMORY,
    Experiment,
    Labels,
    Missing,
)
from pmexp_analysis.sources.values import SectionValues

_MEMORY = "memory/"


def lost_runs(experiment: Experiment) -> list[Missing]:
    """Returns the runs of the protocol's method and baseline that diverged, ended without a result or are to
    end, and those that are not known at all; none of which another of the same seed finished."""
    done = {member.labels for member in experiment.finished}
    sides = (experiment.protocol.method, experiment.protocol.baseline)
    return [
        one
        for one in experiment.missing
        if one.variant in sides
        and (one.state == DIVERGED or Labels(one.task, one.system, one.variant, one.seed) not in done)
    ]


def lost_sentences(experiment: Experiment) -> list[str]:
    """A sentence for each side, in each task and system, of which a run has no result."""
    lost: dict[tuple[str, str, str], list[Missing]] = {}
    for one in lost_runs(experiment):
        lost.setdefault((one.task, one.system, one.variant), []).append(one)
    return [
        f"{task}, {system}: {counted(len(runs), 'run')} of {variant} {'has' if len(runs) == 1 else 'have'} "
        f"no result, or one that is not finite ({_by_state(runs)}); what is said of {variant} is said of the "
        "others."
        for (task, system, variant), runs in lost.items()
    ]


def lacking_method(
    criterion: CriterionConfig,
    sides: Sides,
    section: SectionValues,
    experiment: Experiment,
    lost: Sequence[Missing],
) -> str:
    """Says which runs of the method `criterion` would have to count and cannot: `lost` ones, and those whose
    value is not finite, or not recorded where one run does not have all of it; empty where none.

    A claim on what was learned lacks each run that has no score; one on memory lacks those that had too
    little of it. A seed that the plan gives to other variants alone is no run lost; where no plan says so, as
    in MLflow, the run may have been left out for its result.
    """
    at = (sides.task, sides.system, experiment.protocol.method)
    learns, of_memory = needs_learning(criterion), sides.metric.startswith(_MEMORY)
    runs = [
        one
        for one in lost
        if (one.task, one.system, one.variant) == at
        and one.seed not in sides.method
        and one.seed not in sides.apart
        and one.state != NOT_PLANNED
        and (learns or (of_memory and one.state == OUT_OF_MEMORY))
    ]
    named = {*sides.method, *sides.apart, *(one.seed for one in runs)}
    recorded = section.metrics[sides.metric].by_variant.get(at[2], {}).keys()
    unknown = set() if sides.exact else experiment.finished_seeds.get(at, set()) - recorded
    said = [_by_state(runs)] if runs else []
    for seeds, why in ((recorded - named, "not finite"), (unknown - named, "not recorded")):
        said += [f"{seeds_said(sorted(seeds))}: {why}"] if seeds else []
    return f"{at[2]} has no such value in {'; '.join(said)}" if said else ""


def _by_state(runs: Sequence[Missing]) -> str:
    states = dict.fromkeys(one.state for one in runs)
    return "; ".join(
        f"{seeds_said(sorted({one.seed for one in runs if one.state == state}))}: {state}" for state in states
    )
