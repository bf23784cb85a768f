"""Keeps plan.json, the runs that an experiment shall have: lists and reports know by it what is missing."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from pmexp.errors import UserError
from pmexp.run_folder.files import read_json, write_atomically
from pmexp.run_folder.place import unusable

Label = str | int
_WORDS = ("task", "model", "dataset", "variant", "system")
LABELS = (*_WORDS, "seed")
REQUIRED_LABELS = ("task", "system", "variant", "seed")  # which every run has
MEASURED_ONLY = " (measured only)"  # behind the variant of a run that another one has trained for
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LARGEST_SEED = 2**63


@dataclass(frozen=True)
class PlannedRun:
    """A run that an experiment shall have, as plan.json names it."""

    run_id: str
    labels: Mapping[str, Label]
    settings: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> value


def labels_by(names: Mapping[str, str], seed: Any, is_measured_only: bool) -> dict[str, Any]:
    """Returns a run's labels, by the names of its model, dataset, variant and system."""
    variant = names["variant"] + MEASURED_ONLY * is_measured_only
    return {"task": f"{names['model']}/{names['dataset']}", **names, "variant": variant, "seed": seed}


def labels_in(told: Mapping[str, Any]) -> dict[str, Label]:
    """Returns those of LABELS that `told` has a value of the right type for."""
    labels: dict[str, Label] = {label: told[label] for label in _WORDS if type(told.get(label)) is str}
    seed = told.get("seed")
    if type(seed) is int and abs(seed) < _LARGEST_SEED:
        labels["seed"] = seed
    return labels


def read_plan(experiment: Path) -> dict[str, PlannedRun]:
    """The planned runs by their ids, in the order of the plan; {} for an experiment without one.

    Raises UserError for a file that is no plan.
    """
    file = _file(experiment)
    entries = read_json(file)
    if entries is None:
        return {}
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise UserError(
            f"{file} is no list of runs (run_id, task, system, variant, seed); remove it, or start the sweep "
            "again"
        )
    return {
        entry["run_id"]: PlannedRun(entry["run_id"], labels_in(entry), entry.get("settings") or {})
        for entry in entries
    }


def add_to_plan(experiment: Path, runs: Iterable[tuple[str, Mapping[str, Label], Mapping[str, Any]]]) -> None:
    """Adds runs, each as its id, labels and settings. A file that is no plan is replaced, and one that has
    them all is left alone. Raises UserError or MachineError where it cannot be written."""
    file = _file(experiment)
    new = {run_id: {"run_id": run_id, **labels, "settings": dict(s)} for run_id, labels, s in runs}
    if _holds(file, new):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(".plan.lock")):
            write_atomically(file, json.dumps(list((_entries(file) | new).values()), indent=1) + "\n")
    except OSError as error:
        raise unusable(file, "runs_dir", error) from None


def _holds(file: Path, entries: Mapping[str, Any]) -> bool:
    """Whether the plan is whole and has all of `entries`, as they are in JSON."""
    try:
        read_plan(file.parent)
    except UserError:
        return False
    planned, wanted = _entries(file), json.loads(json.dumps(entries))
    return all(planned.get(run_id) == entry for run_id, entry in wanted.items())


def drop_from_plan(experiment: Path, run_id: str) -> None:
    """Forgets a run that cannot be: its configuration was refused when it started."""
    file = _file(experiment)
    with FileLock(file.with_name(".plan.lock")):
        left = [entry for entry in _entries(file).values() if entry["run_id"] != run_id]
        write_atomically(file, json.dumps(left, indent=1) + "\n")


def _file(experiment: Path) -> Path:
    return experiment / "plan.json"


def _entries(file: Path) -> dict[str, Any]:
    """The entries by their run ids; none of a damaged file, which the sweep that is started again mends."""
    try:
        entries = read_json(file) or []
    except UserError:
        return {}
    return {entry["run_id"]: entry for entry in entries if _is_entry(entry)} if type(entries) is list else {}


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and all(label in labels_in(entry) for label in REQUIRED_LABELS)
        and isinstance(entry.get("run_id"), str)
        and bool(_RUN_ID.fullmatch(entry["run_id"]))
        and isinstance(entry.get("settings") or {}, dict)
    )
