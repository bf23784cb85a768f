"""Which runs share the training of another, and whether the steps that they took were its steps."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pmexp.shown import counted
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.numbers.trainings import NOTHING_LOGGED, Logged
from pmexp_analysis.sources.experiment import Experiment, Member


@dataclass(frozen=True)
class MeasuredOnly:
    """A finished run that took measured steps alone, and the run that trained to its end."""

    member: Member
    trained_id: str
    trained: Member | None  # None where that run has no result
    steps: int  # the last step at which the run logged its loss
    differs_at: float | None  # the first step at which both logged a loss, and not the same one

    @property
    def trained_variant(self) -> str:
        return self.trained.labels.variant if self.trained else f"run {self.trained_id}, which has no result"


def shared_trainings(experiment: Experiment, losses: Mapping[str, Logged]) -> list[MeasuredOnly]:
    """One entry for each finished run that shares its training, in the order of the runs."""
    finished = {member.run.run_id: member for member in experiment.finished}
    return [
        MeasuredOnly(member, trained_id, finished.get(trained_id), *_compared(member, trained_id, losses))
        for member in experiment.finished
        if (trained_id := member.shared_with)
    ]


def _compared(member: Member, trained_id: str, losses: Mapping[str, Logged]) -> tuple[int, float | None]:
    own, other = (losses.get(run_id, NOTHING_LOGGED) for run_id in (member.run.run_id, trained_id))
    steps, mine, theirs = np.intersect1d(own.steps, other.steps, return_indices=True)
    a, b = own.values[mine], other.values[theirs]
    differing = steps[(a != b) & ~(np.isnan(a) & np.isnan(b))]
    return int(own.steps.max(initial=0)), float(differing[0]) if differing.size else None


def shared_remarks(shared: Sequence[MeasuredOnly]) -> dict[tuple[str, str], list[str]]:
    """(task, system) -> a sentence for each training that other variants share."""
    groups: dict[tuple[str, str, str], list[MeasuredOnly]] = defaultdict(list)
    for one in shared:
        if one.differs_at is None:
            groups[one.member.labels.task, one.member.labels.system, one.trained_variant].append(one)
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (task, system, trained), alike in sorted(groups.items()):
        variants = ", ".join(sorted({one.member.labels.variant for one in alike}))
        steps = counted(max(one.steps for one in alike), "step")
        seen = "whose losses are its losses" if alike[0].trained else "which nothing was compared with"
        said[task, system].append(
            f"{variants}: the training is shared with {trained}, since no number in it depends on how masks "
            f"are kept. These runs took {steps} for memory and speed, {seen}; none of them has a score, and "
            "they are no evidence of quality."
        )
    return dict(said)


def shared_warnings(shared: Sequence[MeasuredOnly]) -> list[str]:
    """A sentence for each variant whose steps were not those of the training that it was to share."""
    groups: dict[tuple[str, str, str, str], list[MeasuredOnly]] = defaultdict(list)
    for one in shared:
        if one.differs_at is not None:
            at = one.member.labels
            groups[at.task, at.system, at.variant, one.trained_variant].append(one)
    return [
        f"{task}, {system}: {variant} was to share the training of {trained}, but its losses differ in "
        f"{seeds_said(sorted(one.member.labels.seed for one in differing))}, from step "
        f"{min(one.differs_at or 0 for one in differing):g} on: it is another training; run it with "
        "share_training=false."
        for (task, system, variant, trained), differing in groups.items()
    ]
