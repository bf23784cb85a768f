"""Names what runs have warned of while they trained, as each has it on record."""

from collections import defaultdict

from pmexp.run_folder.summary import WARNED
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.numbers.trainings import Place, place_of
from pmexp_analysis.sources.experiment import Experiment


def warned_of(experiment: Experiment) -> list[str]:
    """Returns a line for each variant and kind of warning: of which seeds, and the first in its words."""
    told: dict[tuple[Place, str], dict[int, str]] = defaultdict(dict)
    for member in experiment.finished:
        for key in WARNED:
            if said := member.run.environment.get(key):
                told[place_of(member), key][member.labels.seed] = str(said)
    return [
        f"{task}, {system}: {variant} has warned in {seeds_said(sorted(by_seed))} "
        f"({key}): {by_seed[min(by_seed)]}."
        for ((task, system, variant), key), by_seed in sorted(told.items())
    ]
