"""Computes the hash that a run's id ends with, and holds what a summary says of its run against it."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pmexp.run_folder.plan import labels_by

_LEFT_OUT_AT = {  # younger keys, at the values that runs had before: their ids stay
    "dataset.padding": "max",
    "dataset.case_sensitive_labels": False,
    "system.matmul": "highest",
    "system.deterministic": False,
    "train.evaluate_every": None,
    "train.evaluate": True,
    "train.shared_with": None,
    "measure.kept_graph": False,
    "variant.apply": None,
    "model.builder": None,
    "dataset.loader": None,
    "robustness.ood.loader": None,
    "robustness.ood.case_sensitive_labels": False,
    "system.own_parts": [],
}
_MADE_HERE = re.compile(r".+-s\d+-([0-9a-f]{12})")
_NAMES = {f"{group}.name": group for group in ("model", "dataset", "variant", "system")}


def digest_of_settings(settings: Mapping[str, Any]) -> str:
    """Returns 12 hexadecimal digits of the hash of `settings`."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def digest_of_run(settings: Mapping[str, Any]) -> str:
    """Returns the digest of a run's settings without younger keys at the values that runs had before."""
    return digest_of_settings({key: value for key, value in settings.items() if not _is_left_out(key, value)})


def _is_left_out(key: str, value: Any) -> bool:
    return key in _LEFT_OUT_AT and value == _LEFT_OUT_AT[key]


def not_of_the_run(run_id: str, settings: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    """Says what in a summary is not that of the run with this id; empty where all is, or where the id is none
    that pmexp makes."""
    made = _MADE_HERE.fullmatch(run_id)
    if made is None:
        return ""
    # An earlier version may have left out less.
    if made[1] not in (digest_of_run(settings), digest_of_settings(settings)):
        return "settings are not those that the run's id is the hash of"
    if missing := [key for key in (*_NAMES, "seed") if key not in settings]:
        return f"settings lack {missing[0]}"
    names = {label: settings[key] for key, label in _NAMES.items()}
    told = labels_by(names, settings["seed"], bool(settings.get("train.shared_with")))
    others = [label for label, value in told.items() if label in labels and labels[label] != value]
    return f"labels.{others[0]} is not that of the settings" if others else ""
