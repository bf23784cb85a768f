"""Says what is compared with what: the settings in which each variant differs from the baseline.

A variant's name says what its option file holds, and not what else was typed for all of its runs.
"""

from collections.abc import Iterator

from pmexp.run_folder.differences import SHARED_WITH, said
from pmexp_analysis.numbers.trainings import Place, place_of
from pmexp_analysis.sources.experiment import Experiment, Member

_NAMES = {"seed", "variant.name", "system.name", SHARED_WITH}


def compared_settings(experiment: Experiment) -> list[str]:
    """Returns a sentence for each variant, of all tasks: settings that differ are in a variant's label.

    All runs of one label have the same settings, so that one run of each side tells.
    """
    baseline = experiment.protocol.baseline
    ways = dict.fromkeys((place[2], differing) for place, differing in _differing(experiment))
    return [
        f"{variant} differs from {baseline} in {differing or 'no setting but its name'}."
        for variant, differing in ways
    ]


def _differing(experiment: Experiment) -> Iterator[tuple[Place, str]]:
    """Yields (task, system, variant) and how its settings differ, where the baseline ran there too."""
    first: dict[Place, Member] = {}
    for member in experiment.finished:
        if member.run.settings:
            first.setdefault(place_of(member), member)
    for place in sorted(first):
        base = first.get((*place[:2], experiment.protocol.baseline))
        if base is not None and base is not first[place]:
            yield place, _in_words(first[place], base)


def _in_words(member: Member, base: Member) -> str:
    own, theirs = member.run.settings, base.run.settings
    keys = [key for key in dict.fromkeys([*own, *theirs]) if key not in _NAMES]
    return ", ".join(
        f"{key}={_value(member, key)} (there {_value(base, key)})"
        for key in keys
        if _value(member, key) != _value(base, key)
    )


def _value(member: Member, key: str) -> str:
    return said(member.run.settings[key]) if key in member.run.settings else "not set"
