"""Other work that had the cores of a run: its times are no partner of those of an idle machine."""

import math
from collections.abc import Mapping, Sequence

from pmexp.metrics.catalog import CORE_WAIT, MOST_UNLIKE_LOAD
from pmexp_analysis.numbers.scores import is_exact
from pmexp_analysis.numbers.trainings import Place
from pmexp_analysis.sources.experiment import Experiment, Member

_TIMES = ("speed/", "energy/", "inference/ms_", "kept_graph/first_", "kept_graph/second_", "profile/")
Loads = tuple[float, float]  # shares of the steps' time that the two runs of a pair waited for a core


def is_time(metric: str) -> bool:
    """Whether other work beside a run changes `metric`: a time, a rate or an energy, not the load itself."""
    return metric.startswith(_TIMES) and metric != CORE_WAIT and not is_exact(metric)


def unlike_loads(experiment: Experiment) -> dict[Place, dict[int, Loads]]:
    """(task, system, variant) -> seed -> the loads of its run and of the baseline's, where other work
    lengthened the steps of one by more than MOST_UNLIKE_LOAD beyond those of the other. A run whose system
    does not tell its load is believed."""
    baseline = experiment.protocol.baseline
    waited = {m.labels: share for m in experiment.finished if math.isfinite(share := _core_wait(m))}
    unlike: dict[Place, dict[int, Loads]] = {}
    for labels, own in waited.items():
        theirs = waited.get(labels._replace(variant=baseline), own)
        less, more = sorted((1 - own, 1 - theirs))  # parts of their time in which the steps had a core
        if more > (1 + MOST_UNLIKE_LOAD) * less:
            place = (labels.task, labels.system, labels.variant)
            unlike.setdefault(place, {})[labels.seed] = own, theirs
    return unlike


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
