"""Criteria on how runs ended."""

from collections.abc import Sequence

from pmexp.protocol import CriterionConfig
from pmexp.shown import counted
from pmexp_analysis.criteria.result import TaskResult, decide
from pmexp_analysis.sources.experiment import DIVERGED, FINISHED, NOT_PLANNED, Member, Missing


def judge_divergence(
    criterion: CriterionConfig, task: str, system: str, runs: Sequence[Member], missing: Sequence[Missing]
) -> TaskResult:
    """How many of the method's `runs` diverged; `missing` are those of its runs that have no result."""
    diverged = sorted(member.labels.seed for member in runs if member.state == DIVERGED)
    finished = [member for member in runs if member.state in (FINISHED, DIVERGED)]
    if not finished:
        return TaskResult(task, system, "not measured", "no run of the method finished")
    result = decide(len(diverged), len(diverged), criterion.comparison, criterion.threshold)
    lost = [one for one in missing if one.state not in (DIVERGED, NOT_PLANNED)]
    ended = f"{len(finished)} of {counted(len(finished) + len(lost), 'run')} finished"
    if diverged:
        why = f"{ended}, seed {', '.join(map(str, diverged))} with a loss or score that is not finite"
    elif lost:
        why = (
            f"{ended}, all with finite losses and scores; seed "
            f"{', '.join(str(one.seed) for one in lost)}: {lost[0].state}"
        )
        result = "inconclusive"
    else:
        why = f"{ended}, all with finite losses and scores"
    return TaskResult(task, system, result, why, float(len(diverged)), n=len(finished))
