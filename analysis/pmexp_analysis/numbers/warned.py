"""Names what runs have warned of while they trained, as each has it on record."""

from collections import defaultdict

from pmexp.run_folder.warned import WARNED
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.sources.experiment import Experiment


def warned_of(experiment: Experiment) -> list[str]:
    """Returns a line for each warning in each task and system, with the variants and seeds that have it."""
    told: dict[tuple[str, str, str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for member in experiment.finished:
        at = member.labels
        for key in WARNED:
            if said := member.run.environment.get(key):
                told[at.task, at.system, key, str(said)][at.variant].append(at.seed)
    return [
        f"{task}, {system}: {_named(by_variant)} warned ({key}): {said}."
        for (task, system, key, said), by_variant in sorted(told.items())
    ]


def _named(by_variant: dict[str, list[int]]) -> str:
    return "; ".join(
        f"{variant} in {seeds_said(sorted(seeds))}" for variant, seeds in sorted(by_variant.items())
    )
