"""Criteria on how runs ended."""

from collections.abc import Sequence

from pmexp.protocol import CriterionConfig
from pmexp.shown import counted
from pmexp_analysis.criteria.result import TaskResult, decide
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.sources.experiment import DIVERGED, FINISHED, NOT_PLANNED, Member, Missing


def judge_divergence(
    criterion: CriterionConfig, task: str, system: str, runs: Sequence[Member], missing: Sequence[Missing]
) -> TaskResult:
    """How many of the method's `runs` diverged; `missing` are those of its runs that have no result."""
    diverged = sorted(member.labels.seed for member in runs if member.state == DIVERGED)
    finished = [member for member in runs if member.state in (FINISHED, DIVERGED)]
    if not finished:
        return TaskResult(task, system, "not measured", "no run of the method finished")
    lost = [one for one in missing if one.state not in (DIVERGED, NOT_PLANNED)]
    most = len(diverged) + len(lost)  # what is lost may have diverged
    result = decide(len(diverged), most, criterion.comparison, criterion.threshold)
    said = [f"{len(finished)} of {counted(len(finished) + len(lost), 'run')} finished"]
    if diverged:
        said.append(f"{seeds_said(diverged)} with a loss or score that is not finite")
    else:
        said.append("all with finite losses and scores")
    why = ", ".join(said)
    if lost:
        why += f"; {seeds_said(sorted({one.seed for one in lost}))}: {lost[0].state}"
    return TaskResult(task, system, result, why, float(len(diverged)), n=len(finished))
