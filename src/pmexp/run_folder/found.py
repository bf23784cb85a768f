"""Finds all runs of an experiment by its plan and its folders, whatever state or damage they are in.

It is the one reader: the list of runs, the repair of trackers and the report go by it. It takes time linear
in the number of runs.
"""

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pmexp.errors import UserError, first_line
from pmexp.masking import masked
from pmexp.run_folder.files import opened, read_content
from pmexp.run_folder.folder import JOURNAL, OWNER, SUMMARY, RunFolder
from pmexp.run_folder.journal import digest_of_journal
from pmexp.run_folder.journal_lines import Curve, RunProgress, curve_in, progress_of
from pmexp.run_folder.plan import REQUIRED_LABELS, Label, PlannedRun, labels_by, labels_in, read_plan
from pmexp.run_folder.run_id import not_of_the_run
from pmexp.run_folder.state import State, unfinished_state
from pmexp.run_folder.summary import NOT_FINITE, Summary, read_summary

_MARKS = (SUMMARY, "failure.json", OWNER, JOURNAL, "config.yaml")
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as quick


@dataclass  # thousands are made: a frozen one takes three times as long
class FoundRun:
    """A run that is planned, or has a folder."""

    run_id: str
    path: Path
    state: State
    labels: Mapping[str, Label] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # as its summary has them, else its plan
    summary: Summary | None = None
    failure: Mapping[str, Any] = field(default_factory=dict)  # status, kind, error, log
    owner: Mapping[str, Any] = field(default_factory=dict)
    damage: str = ""  # one line: what in its folder is not as a run leaves it
    curve: Curve | None = None  # the lines of its journal, of one with a result, where they were asked for
    is_planned: bool = False

    @property
    def error(self) -> str:
        """One line: why it has no result, and what in its folder cannot be read."""
        ended = self.summary.error if self.summary else str(self.failure.get("error", ""))
        return masked("; ".join(part for part in (ended, self.damage) if part))

    @property
    def not_finite(self) -> str:
        """Says which of its losses and scores were not finite, and when; empty before its end."""
        return masked(str(self.summary.environment.get(NOT_FINITE, ""))) if self.summary else ""

    @property
    def is_settled(self) -> bool:
        """Whether the run has a result, and so stays as it is."""
        return self.state.is_result

    @cached_property
    def progress(self) -> RunProgress:
        """Says how far it has come, by the end of its journal."""
        return progress_of(RunFolder(self.path).journal)

    @cached_property
    def seconds(self) -> float:
        """Time from its last start to its end, for one that runs to now; NaN where it is not known."""
        folder = RunFolder(self.path)
        if self.state is State.running:
            end = time.time()
        else:
            mark = folder.summary if self.summary else folder.failure if self.failure else folder.heartbeat
            end = mark.stat().st_mtime if mark.is_file() else math.nan
        return end - float(self.owner.get("started", math.nan))


def experiments(runs_dir: Path) -> list[str]:
    """Names of the experiments under `runs_dir`. Raises UserError where there is no such folder."""
    if not runs_dir.is_dir():
        raise UserError(f"runs_dir: {runs_dir} is not a folder; run something first, or name another place")
    return sorted(folder.name for folder in runs_dir.iterdir() if _is_experiment(folder))


def find_runs(runs_dir: Path, name: str, known: Mapping[str, FoundRun] | None = None) -> list[FoundRun]:
    """Every run that is planned or has a folder, in the plan's order, then by run id.

    known: what was found before, by run id; what is settled is not read again.

    Raises UserError for an unknown name, or a plan that cannot be read.
    """
    settled = {run_id: run for run_id, run in (known or {}).items() if run.is_settled}
    return [
        settled.get(path.name) or read_run(path, planned) for path, planned in _run_folders(runs_dir, name)
    ]


def each_run(runs_dir: Path, name: str) -> Iterator[FoundRun]:
    """Yields the runs of find_runs one by one, with the curves of those that have a result.

    Raises UserError as find_runs does.
    """
    for path, planned in _run_folders(runs_dir, name):
        yield read_run(path, planned, with_curve=True)


def known_runs(experiment: Path) -> list[PlannedRun | FoundRun]:
    """The runs of an experiment's folder, those of its plan as that has them: their own folders, which may be
    thousands, are not read. Raises UserError for a plan that cannot be read."""
    return [planned or read_run(path) for path, planned in _folders_of(experiment)]


def _run_folders(runs_dir: Path, name: str) -> list[tuple[Path, PlannedRun | None]]:
    known = experiments(runs_dir) if runs_dir.is_dir() else []
    if name not in known:
        others = f"there are: {', '.join(known)}" if known else "there is none yet: run one first"
        raise UserError(f"no experiment '{name}' in {runs_dir} ({others}); runs_dir names another place")
    return _folders_of(runs_dir / name)


def _folders_of(folder: Path) -> list[tuple[Path, PlannedRun | None]]:
    planned = read_plan(folder)
    unplanned = sorted(name for name in os.listdir(folder) if name not in planned and _is_run(folder, name))
    return [
        *((folder / run_id, run) for run_id, run in planned.items()),
        *((folder / run_id, None) for run_id in unplanned),
    ]


def read_run(path: Path, planned: PlannedRun | None = None, with_curve: bool = False) -> FoundRun:
    """Returns the run of a folder, which may be damaged or made by somebody else: no content of it raises."""
    labels, settings = (planned.labels, planned.settings) if planned else ({}, {})
    try:
        run = _read(RunFolder(path), labels, settings, with_curve)
    except Exception as error:
        damage = first_line(error) if isinstance(error, UserError) else f"{path} cannot be read: {error!r}"
        labels = labels or _configured_labels(RunFolder(path))[0]
        run = FoundRun(path.name, path, State.failed, labels, settings, damage=damage)
    run.is_planned = planned is not None
    return run


def _read(
    folder: RunFolder, labels: Mapping[str, Label], settings: Mapping[str, Any], with_curve: bool
) -> FoundRun:
    name, place = folder.path.name, str(folder.path)
    # Text: to make a path takes longer than to read the file.
    summary_file, journal_file = f"{place}/{SUMMARY}", f"{place}/{JOURNAL}"
    if (summary := read_summary(summary_file)) is not None:
        own = labels_in(summary.labels)
        damage, curve = _label_damage(summary_file, summary, own, labels), None
        try:
            journal = read_content(journal_file)
            damage = damage or _id_damage(summary_file, name, summary)
            damage = damage or _journal_damage(journal_file, journal, summary)
            if with_curve and not damage:
                curve = curve_in(journal or b"", journal_file)
        except UserError as error:
            damage = first_line(error)
        state = State.failed if damage else State.oom if summary.status == "oom" else State.finished
        told = labels or own, summary.settings
        return FoundRun(name, folder.path, state, *told, summary, {}, folder.owner(), damage, curve)
    failure, owner = folder.failed(), folder.owner()
    state = unfinished_state(folder, failure, owner)
    unlabelled = ""
    if not labels and state is not State.pending:
        labels, unlabelled = _configured_labels(folder)
    return FoundRun(name, folder.path, state, labels, settings, None, failure, owner, unlabelled)


def _label_damage(
    file: str, summary: Summary, labels: Mapping[str, Label], planned: Mapping[str, Label]
) -> str:
    """What is wrong with the labels of a summary, by itself and by the plan; empty where nothing is.

    `labels`: those of the summary that are of the right type.
    """
    if missing := [label for label in REQUIRED_LABELS if label not in labels]:
        wrong = [
            f"{name}={summary.labels[name]!r}" for name in missing if summary.labels.get(name) is not None
        ]
        said = f"labels has {', '.join(wrong)}" if wrong else f"labels has no {', '.join(missing)}"
        allowed = "; task, system and variant are text, the seed a whole number" * bool(wrong)
        return f"{file} is damaged: {said}{allowed}; {_ANEW}"
    if other := [label for label, value in planned.items() if labels.get(label) != value]:
        return f"{file} is damaged: labels.{other[0]} is not that of the plan; {_ANEW}"
    return ""


def _id_damage(file: str, run_id: str, summary: Summary) -> str:
    said = not_of_the_run(run_id, summary.settings, summary.labels)
    return f"{file} is damaged: {said}; {_ANEW}" if said else ""


def _journal_damage(file: str, journal: bytes | None, summary: Summary) -> str:
    """How the journal differs from the one that the run ended with; empty where it does not.

    Raises UserError at a line that is none of a journal, where an earlier version told no digest.
    """
    if summary.journal is None:
        curve_in(journal or b"", file)
        return ""
    if journal is None:
        return f"{file} is not there any more; {_ANEW}"
    now = digest_of_journal(journal)
    if now == summary.journal:
        return ""
    was = summary.journal.bytes
    how = f"has {now.bytes} bytes and had {was}" if now.bytes != was else "holds other lines"
    return f"{file} {how} when its run ended; {_ANEW}"


_ANEW = "its values are not to be trusted, so remove the run's folder and run it again"


def _configured_labels(folder: RunFolder) -> tuple[dict[str, Label], str]:
    """The labels of a run that is in no plan, and what is wrong where it has none."""
    try:
        with opened(folder.path / "config.yaml") as stream:
            config = yaml.load(stream.read().decode("utf-8"), Loader=_YAML)
        names = {group: config[group]["name"] for group in ("model", "dataset", "variant", "system")}
        shared = bool(config.get("train", {}).get("shared_with"))
        return labels_in(labels_by(names, config["seed"], shared)), ""
    except Exception as error:  # anybody may have written it
        return {}, f"it has no labels ({first_line(error)})"


def _is_experiment(folder: Path) -> bool:
    return folder.is_dir() and (
        (folder / "plan.json").is_file() or any(_is_run(folder, name) for name in os.listdir(folder))
    )


def _is_run(folder: Path, name: str) -> bool:
    return any(os.path.isfile(f"{folder}/{name}/{mark}") for mark in _MARKS)
