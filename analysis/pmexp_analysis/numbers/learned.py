"""Which runs never learned: nothing that was measured on such a model says anything about training."""

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from pmexp.metrics.catalog import metric_of
from pmexp_analysis.numbers.cells import number
from pmexp_analysis.numbers.scores import label_of, scores
from pmexp_analysis.numbers.trainings import NOTHING_LOGGED, Logged, Place, place_of
from pmexp_analysis.sources.experiment import Experiment

_FLAT = 1e-6  # a loss that moves by less, relative to itself, is flat


def never_learned(
    experiment: Experiment, losses: Mapping[str, Logged], gradients: Mapping[str, Logged]
) -> dict[Place, dict[int, str]]:
    """(task, system, variant) -> seed -> how it shows that the run never learned."""
    chance_of = {member.labels.task: member.run.chance for member in experiment.members if member.run.chance}
    reasons: dict[Place, dict[int, str]] = defaultdict(dict)
    for member in experiment.members:
        run = member.run
        if run.finals is not None and not member.shared_with:
            why = (
                _at_chance(run.finals, run.chance or chance_of.get(member.labels.task, {}))
                or _flat(losses.get(run.run_id, NOTHING_LOGGED))
                or _zero(gradients.get(run.run_id, NOTHING_LOGGED))
            )
            if why:
                reasons[place_of(member)][member.labels.seed] = why
    return dict(reasons)


def _at_chance(finals: Mapping[str, float], chance: Mapping[str, float]) -> str:
    """How the scores of the foremost split compare with chance; empty where one is better, or none known."""
    known = [metric for metric in _main(tuple(finals)) if metric in chance] if chance else []
    if not known or any(_is_better(metric, finals[metric], chance[metric]) for metric in known):
        return ""
    return ", ".join(
        f"{label_of(metric)} {number(finals[metric])} is no better than {number(chance[metric])}, the score "
        "of always giving the same answer"
        for metric in known
    )


@lru_cache(maxsize=1024)  # thousands of runs record the same metrics
def _main(metrics: tuple[str, ...]) -> list[str]:
    return scores(metrics)


def _is_better(metric: str, value: float, chance: float) -> bool:
    """Whether a score is beyond chance; one that is not finite is named elsewhere, as diverged."""
    if not np.isfinite(value):
        return True
    return value > chance if metric_of(metric).direction == "max" else value < chance


def _flat(losses: Logged) -> str:
    values = losses.values
    if values.size < 2:
        return ""
    most = _FLAT * abs(values[0])
    if abs(values[-1] - values[0]) > most:  # so it is in most runs, which saves the look at all values
        return ""
    if not np.ptp(values) <= most:  # NaN: diverged, which is no flat loss
        return ""
    return f"its loss is {number(float(values[0]))} at every logged step"


def _zero(gradients: Logged) -> str:
    is_zero = gradients.values.size and not gradients.values.any()
    return "its gradient was zero at every logged step" if is_zero else ""
