"""tracking.json: which trackers have all of a run as it ended, and where; or why one lacks a part of it."""

import json
import shlex
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pmexp.errors import UserError
from pmexp.masking import masked
from pmexp.run_folder.files import read_object, write_atomically

_LACKS = "lacks"
_one_writer = threading.Lock()  # a run's trackers have a thread each


def mark_complete(file: Path, tracker: str, where: Mapping[str, str]) -> None:
    """Writes that a tracker has all of the run as it ended. Raises OSError."""
    _mark(file, tracker, dict(where))


def mark_lacking(file: Path, tracker: str, why: str) -> None:
    """Writes that a tracker lacks a part of the run, and why. Raises OSError."""
    _mark(file, tracker, {_LACKS: masked(why)})


def where(file: Path, tracker: str) -> Mapping[str, Any]:
    """Where the tracker has all of the run; {} where it may lack a part. Raises UserError for a damaged
    file."""
    told = _marks(file).get(tracker, {})
    return {} if _LACKS in told else told


def lacking(file: Path) -> dict[str, str]:
    """Why each tracker that lacks a part of the run does so. Raises UserError for a damaged file."""
    return {name: str(told[_LACKS]) for name, told in _marks(file).items() if _LACKS in told}


def settled(file: Path) -> set[str]:
    """The trackers of which it is on record that they have all of the run, or lack a part."""
    try:
        return set(_marks(file))
    except UserError:  # a damaged file says nothing, and all of it can be found out again
        return set()


def lacked(experiment: Path, asked: Mapping[Path, Collection[str]]) -> str:
    """Says which trackers lack finished runs, or a part of them, and how they get it; empty where none does.

    experiment: its folder. asked: the trackers that are now asked for, by the runs' tracking.json.
    """
    without = {file: {*trackers} - _complete(file) for file, trackers in asked.items()}
    runs = sum(map(bool, without.values()))
    if not runs:
        return ""
    names = ",".join(sorted(set().union(*without.values())))
    runs_dir = experiment.parent
    place = "" if runs_dir == Path("runs").resolve() else f" runs_dir={shlex.quote(str(runs_dir))}"
    are, them = ("s are", "them") if runs > 1 else (" is", "it")
    return (
        f"{runs} finished run{are} not wholly in {names}; pmexp runs repair {experiment.name}{place} "
        f"trackers={names} brings {them} there"
    )


def _complete(file: Path) -> set[str]:
    there = settled(file)
    return there - lacking(file).keys() if there else there


def _mark(file: Path, tracker: str, told: Mapping[str, str]) -> None:
    with _one_writer:
        try:
            marks = _marks(file)
        except UserError:  # somebody damaged what only says what had arrived
            marks = {}
        write_atomically(file, json.dumps(marks | {tracker: told}, indent=1) + "\n")


def _marks(file: Path) -> dict[str, Mapping[str, Any]]:
    told = read_object(file)
    if "mlflow_run_id" in told:  # earlier versions had one tracker
        return {"mlflow": told}
    return {name: mark for name, mark in told.items() if isinstance(mark, dict)}
