"""Runs of one task, system and variant that differ in a setting get labels that name it: "pm-drop rng=torch".

Else two configurations under one experiment's name would be averaged, or paired with the wrong partner.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pmexp_analysis.sources.experiment import SHARED_WITH, Labels
from pmexp_analysis.sources.shared import distinct_items

Settings = Mapping[str, object]

_SAID_BY_LABELS = {
    "seed",
    "model.name",
    "dataset.name",
    "variant.name",
    "system.name",
    "system.parts",
    SHARED_WITH,  # "(measured only)" behind the variant
}
# A dropout rate changes the training of every variant alike: it belongs to the task.
_OF_TASK = {"variant.p"}


def distinguish(runs: Mapping[str, tuple[Labels, Settings]]) -> dict[str, Labels]:
    """Run id -> labels, out of run id -> (labels, settings: dotted key -> value, maybe empty)."""
    suffix: dict[str, dict[str, str]] = {}
    varying = [key for key in _varying([s for _, s in runs.values()]) if key not in _SAID_BY_LABELS]
    for label in ("task", "system", "variant") if varying else ():
        keys = [key for key in varying if part_of(key) == label]
        words = {run_id: (getattr(labels, label), settings) for run_id, (labels, settings) in runs.items()}
        suffix[label] = _suffixes(words, label, keys)
    if not any(any(of_runs.values()) for of_runs in suffix.values()):
        return {run_id: labels for run_id, (labels, _) in runs.items()}
    return {
        run_id: labels._replace(**{label: getattr(labels, label) + suffix[label][run_id] for label in suffix})
        for run_id, (labels, _) in runs.items()
    }


def _varying(runs: Sequence[Settings]) -> list[str]:
    """The keys with several values, in the order of the settings: few of a hundred, so that what follows is
    quick for thousands of runs."""
    first: dict[str, object] = {}
    differing = {key for key, value in distinct_items(runs) if first.setdefault(key, value) != value}
    return [key for key in first if key in differing]


def _suffixes(runs: Mapping[str, tuple[str, Settings]], label: str, keys: Sequence[str]) -> dict[str, str]:
    """For each run the settings among `keys` in which the runs of one word differ."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for word, settings in runs.values():
        for key in keys:
            if key in settings:
                values[word, key].add(str(settings[key]))
    return {
        run_id: "".join(
            f" {key.removeprefix(label + '.')}={settings[key]}"
            for key in keys
            if key in settings and len(values[word, key]) > 1
        )
        for run_id, (word, settings) in runs.items()
    }


def part_of(key: str) -> str:
    """What of a run a setting belongs to: task, system or variant."""
    if key == SHARED_WITH:
        return "variant"
    group = key.partition(".")[0]
    return group if group in ("variant", "system") and key not in _OF_TASK else "task"
