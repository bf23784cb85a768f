"""summary.json, the last file that a run writes: its result, and the length and digest of its journal."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pmexp.masking import masked, masked_values
from pmexp.run_folder.files import damaged, read_object, write_atomically
from pmexp.run_folder.journal import JournalDigest

NOT_FINITE = "not_finite"  # key of the environment: which losses and scores were not finite, and when
_STATUSES = ("finished", "oom")


@dataclass  # thousands are made: a frozen one takes three times as long
class Summary:
    """Holds what summary.json says of a run with a result."""

    status: str  # "finished", or "oom": memory did not suffice, which is a result like another
    labels: Mapping[str, Any]
    metrics: Mapping[str, float]  # last values; NaN where one was not finite
    settings: Mapping[str, Any]  # dotted key -> value
    environment: Mapping[str, Any]
    error: str = ""  # the line that says why, where status is "oom"
    protocol: Mapping[str, Any] | None = None  # that it was started under
    tracking: Mapping[str, Any] = field(default_factory=dict)
    journal: JournalDigest | None = None  # None where an earlier version or a rank other than 0 wrote it
    weights_sha256: str = ""  # digest after the last step; empty where none was recorded
    chance: Mapping[str, float] = field(default_factory=dict)  # score -> what a constant answer reaches
    samples: Mapping[str, float] = field(default_factory=dict)  # split -> how many samples were scored


def write_summary(
    file: Path,
    run: Mapping[str, Any],
    metrics: Mapping[str, float],
    environment: Mapping[str, Any],
    replacement: Mapping[str, Any],
    tracking: Mapping[str, Any] | None,
    journal: JournalDigest | None,
    out_of_memory: str = "",
    outcome: Mapping[str, Any] | None = None,
) -> None:
    """Writes the result of a run.

    run: what its configuration says: run_id, name, labels, settings, protocol.
    out_of_memory: the line that says so where the run ended by it.
    journal: None from a rank other than 0, since rank 0 may still write it.
    outcome: of the training, where it came to its end: weights_sha256, chance, samples.
    """
    summary = {
        "status": "oom" if out_of_memory else "finished",
        **({"error": masked(out_of_memory)} if out_of_memory else {}),
        **run,
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "environment": masked_values(environment),
        "replacement": dict(replacement),
        "outcome": dict(outcome or {}),
        "tracking": tracking,
        "journal": journal and {"bytes": journal.bytes, "blake2b": journal.blake2b},
    }
    write_atomically(file, json.dumps(summary, indent=1) + "\n")


def read_summary(file: Path | str) -> Summary | None:
    """Reads the summary in `file`; None where it is missing. Raises UserError naming a damaged part."""
    content = read_object(file, "status")
    if not content:
        return None
    if content.get("status") not in _STATUSES:
        raise damaged(file, f"its status is {content.get('status')!r}, allowed are {' and '.join(_STATUSES)}")
    parts = {key: _object(file, content, key) for key in ("labels", "settings", "environment")}
    outcome = _object(file, content, "outcome")
    return Summary(
        status=content["status"],
        labels=parts["labels"],
        metrics=_numbers(file, content, "metrics"),
        settings=parts["settings"],
        environment=parts["environment"],
        error=str(content.get("error", "")),
        protocol=_object(file, content, "protocol") or None,
        tracking=_object(file, content, "tracking"),
        journal=_journal(file, _object(file, content, "journal")),
        weights_sha256=str(outcome.get("weights_sha256", "")),
        chance=_numbers(file, outcome, "chance"),
        samples=_numbers(file, outcome, "samples"),
    )


def _object(file: Path | str, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = content.get(key)
    if part is not None and not isinstance(part, dict):
        raise damaged(file, f"{key} is no object")
    return part or {}


def _numbers(file: Path | str, content: Mapping[str, Any], key: str) -> Mapping[str, float]:
    told = _object(file, content, key)
    if set(map(type, told.values())) <= {float} and all(map(math.isfinite, told.values())):  # most are
        return told
    return {name: _number(file, name, value) for name, value in told.items()}


def _number(file: Path | str, name: str, value: Any) -> float:
    """`value` as a float, NaN for null and for what is not finite."""
    if value is None:
        return math.nan
    try:
        number = float(value) if isinstance(value, int | float) else None
    except OverflowError:  # an integer of hundreds of digits
        number = None
    if number is None:
        raise damaged(file, f"metrics.{name} is no number")
    return number if math.isfinite(number) else math.nan


def _journal(file: Path | str, told: Mapping[str, Any]) -> JournalDigest | None:
    if not told:
        return None
    length, digest = told.get("bytes"), told.get("blake2b")
    if not isinstance(length, int) or not isinstance(digest, str):
        raise damaged(file, "journal has no bytes and blake2b")
    return JournalDigest(length, digest)
