"""Other work that had the cores of a run: its times are no partner of those of an idle machine."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from pmexp.metrics.catalog import CORE_WAIT, MOST_UNLIKE_LOAD, MOST_UNLIKE_LOADS
from pmexp_analysis.numbers.scores import is_exact
from pmexp_analysis.numbers.trainings import Place
from pmexp_analysis.sources.experiment import Experiment, Member

_TIMES = ("speed/", "energy/", "inference/ms_", "kept_graph/first_", "kept_graph/second_", "profile/")
Loads = tuple[float, float]  # shares of the steps' time that the two runs of a pair waited for a core


def is_time(metric: str) -> bool:
    """Whether other work beside a run changes `metric`: a time, a rate or an energy, not the load itself."""
    return metric.startswith(_TIMES) and metric != CORE_WAIT and not is_exact(metric)


def unlike_loads(experiment: Experiment) -> dict[Place, dict[int, Loads]]:
    """(task, system, variant) -> seed -> the loads of its run and of the baseline's, where these are unlike.

    They are in a pair where other work lengthened the steps of one run by more than MOST_UNLIKE_LOAD beyond
    those of the other, and in all pairs where in the mean of the rest it is more than MOST_UNLIKE_LOADS: no
    interval covers load that lies on one side. A run whose system does not tell its load is believed.
    """
    waited = {m.labels: share for m in experiment.finished if 0 <= (share := _core_wait(m)) < 1}
    pairs: dict[Place, dict[int, Loads]] = defaultdict(dict)
    for labels, own in waited.items():
        theirs = waited.get(labels._replace(variant=experiment.protocol.baseline))
        if theirs is not None:
            pairs[labels.task, labels.system, labels.variant][labels.seed] = own, theirs
    unlike = {place: _unlike(by_seed) for place, by_seed in pairs.items()}
    return {place: by_seed for place, by_seed in unlike.items() if by_seed}


def _unlike(loads: Mapping[int, Loads]) -> dict[int, Loads]:
    longer = {seed: math.log((1 - theirs) / (1 - own)) for seed, (own, theirs) in loads.items()}
    alike = {seed: more for seed, more in longer.items() if abs(more) <= math.log1p(MOST_UNLIKE_LOAD)}
    if alike and abs(fmean(alike.values())) > math.log1p(MOST_UNLIKE_LOADS):
        return dict(loads)
    return {seed: pair for seed, pair in loads.items() if seed not in alike}


def load_sentences(unlike: Mapping[Place, Mapping[int, Loads]], baseline: str) -> list[str]:
    """A sentence for each variant of which a pair ran under unlike load, with what to do."""
    return [
        f"{task}, {system}: of the time of their steps {variant} and {baseline} waited for a core, since "
        f"other work had it, in unlike parts: {_each(by_seed)}; these pairs are excluded from comparisons of "
        "speed and energy. For a claim on these remove their runs' folders, and start the sweep again where "
        "no other work runs."
        for (task, system, variant), by_seed in unlike.items()
    ]


def _each(by_seed: Mapping[int, Loads]) -> str:
    return ", ".join(
        f"seed {seed} {own:.1%} versus {theirs:.1%}" for seed, (own, theirs) in sorted(by_seed.items())
    )


def on_shared_cores(told: Sequence[Member]) -> list[str]:
    """A sentence that names the runs whose steps waited for a core, since other work had it; else nothing."""
    shared = [(m.labels, said) for m in told if (said := str(m.run.environment.get("shared_cores", "")))]
    if not shared:
        return []
    labels, said = shared[0]
    return [
        f"The times of {len(shared)} of {len(told)} runs are those of a loaded machine; the first: "
        f"{labels.variant} seed {labels.seed} {said}."
    ]


def _core_wait(member: Member) -> float:
    return (member.run.finals or {}).get(CORE_WAIT, math.nan)
