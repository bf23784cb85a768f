"""Which runs never learned: nothing that was measured on such a model says anything about training."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from pmexp.metrics.catalog import metric_of
from pmexp.metrics.task_metrics import TASK_METRICS
from pmexp_analysis.numbers.cells import number
from pmexp_analysis.numbers.scores import label_of, scores
from pmexp_analysis.numbers.stats import Array
from pmexp_analysis.numbers.trainings import NOTHING_LOGGED, Logged, Place, place_of
from pmexp_analysis.sources.experiment import Experiment
from pmexp_analysis.sources.values import main_first

_FLAT = 1e-6  # a loss that moves by less, relative to itself, is flat
_LEVEL = 0.05  # the level of the one-sided tests whether a score is beyond chance and whether a loss falls
_FEWEST = 8  # logged losses, below which no test can tell a loss that falls from one that does not


@dataclass(frozen=True)
class Unlearned:
    """How it shows that a run never learned.

    `by_score`: by its score alone, as in a run that was too short to learn; loss and gradient moved.
    """

    why: str
    by_score: bool


def never_learned(
    experiment: Experiment, losses: Mapping[str, Logged], gradients: Mapping[str, Logged]
) -> dict[Place, dict[int, Unlearned]]:
    """(task, system, variant) -> seed -> how it shows that the run never learned."""
    members = experiment.members
    chance_of = {member.labels.task: member.run.chance for member in members if member.run.chance}
    samples_of = {member.labels.task: member.run.samples for member in members if member.run.samples}
    unlearned: dict[Place, dict[int, Unlearned]] = defaultdict(dict)
    for member in members:
        run, task = member.run, member.labels.task
        if run.finals is not None and not member.shared_with:
            logged = losses.get(run.run_id, NOTHING_LOGGED)
            chance, samples = run.chance or chance_of.get(task, {}), run.samples or samples_of.get(task, {})
            still = _flat(logged) or _zero(gradients.get(run.run_id, NOTHING_LOGGED))
            by_score = _at_chance(run.finals, chance) or near_chance(run.finals, chance, samples, logged)
            if by_score or still:
                unlearned[place_of(member)][member.labels.seed] = Unlearned(by_score or still, not still)
    return dict(unlearned)


def _at_chance(finals: Mapping[str, float], chance: Mapping[str, float]) -> str:
    """How the scores of the foremost split compare with chance; empty where one is better, or none known."""
    known = _known(finals, chance)
    if not known or any(_is_better(metric, finals[metric], chance[metric]) for metric in known):
        return ""
    return ", ".join(
        f"{label_of(metric)} {number(finals[metric])} is no better than {number(chance[metric])}, the score "
        "of always giving the same answer"
        for metric in known
    )


def near_chance(
    finals: Mapping[str, float], chance: Mapping[str, float], samples: Mapping[str, float], losses: Logged
) -> str:
    """How a classifier shows that it learned nothing by scores that are better than chance by luck alone.

    Empty where a share of right answers is beyond what luck gives in 19 of 20 models that know nothing, or
    where the training loss falls, or where too little was recorded to say so.
    """
    shares = [metric for metric in _known(finals, chance) if _is_share(metric) and samples]
    if not shares or any(
        _is_beyond_luck(finals[metric], chance[metric], samples.get(metric.partition("/")[0], 0))
        for metric in shares
    ):
        return ""
    if losses.values.size < _FEWEST or _falls(losses.values):
        return ""
    said = ", ".join(
        f"{label_of(metric)} {number(finals[metric])} is within chance of {number(chance[metric])}, the "
        f"score of always giving the same answer, on {samples[metric.partition('/')[0]]:.0f} samples"
        for metric in shares
    )
    return f"{said}, and its loss does not fall"


def _known(finals: Mapping[str, float], chance: Mapping[str, float]) -> list[str]:
    return [metric for metric in _main(tuple(finals)) if metric in chance] if chance else []


def _is_share(metric: str) -> bool:
    told = TASK_METRICS.get(metric.partition("/")[2])
    return told is not None and told.is_share


def _is_beyond_luck(score: float, chance: float, samples: float) -> bool:
    """Whether a model that answers right with probability `chance` scores so high in at most 5 % of cases,
    by the binomial distribution; also where that cannot be known."""
    if not (np.isfinite(score) and samples >= 1 and 0 < chance < 1):
        return True
    return bool(special.bdtrc(round(score * samples) - 1, int(samples), chance) <= _LEVEL)


def _falls(losses: Array) -> bool:
    """Whether the later half of the losses is below the earlier one, by a rank test (Mann and Whitney's).

    Ranks make little of a few high losses at the start, while a model learns how frequent each class is.
    A loss that is not finite is no flat one.
    """
    if not np.isfinite(losses).all():
        return True
    early, late = losses[: len(losses) // 2], np.sort(losses[len(losses) // 2 :])
    below, up_to = (np.searchsorted(late, early, side) for side in ("left", "right"))
    wins = (below.sum() + up_to.sum()) / 2  # pairs whose earlier loss is the higher one, and half of the ties
    pairs = early.size * late.size
    error = (pairs * (losses.size + 1) / 12) ** 0.5
    return bool(special.ndtr((pairs / 2 - wins) / error) <= _LEVEL)


@lru_cache(maxsize=1024)  # thousands of runs record the same metrics
def _main(metrics: tuple[str, ...]) -> list[str]:
    return scores(main_first(metrics, ()))


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
