"""Runs of one task, system and variant that differ in a setting get labels that name it: "pm-drop rng=torch".

Else two configurations under one experiment's name would be averaged, or paired with the wrong partner.
"""

from collections.abc import Mapping

from pmexp.run_folder.differences import part_of, said, told_apart
from pmexp_analysis.sources.experiment import Labels

Settings = Mapping[str, object]


def distinguish(runs: Mapping[str, tuple[Labels, Settings]]) -> dict[str, Labels]:
    """Run id -> labels, out of run id -> (labels, settings: dotted key -> value, maybe empty)."""
    differing = told_apart(
        {run_id: (labels._asdict(), settings) for run_id, (labels, settings) in runs.items()}
    )
    return {run_id: _with(labels, differing[run_id]) for run_id, (labels, _) in runs.items()}


def _with(labels: Labels, differing: Settings) -> Labels:
    suffix = {"task": "", "system": "", "variant": ""}
    for key, value in differing.items():
        if key not in suffix:
            part = part_of(key)
            suffix[part] += f" {key.removeprefix(part + '.')}={said(value)}"
    task, system, variant = (getattr(labels, part) + words for part, words in suffix.items())
    return Labels(task, system, variant, labels.seed)
