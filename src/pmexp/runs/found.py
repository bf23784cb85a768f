"""The runs of an experiment, as its plan and its folders tell of them, in time linear in their number."""

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hydra_plugins.pmexp_launchers.sweep import State, state_of
from pmexp.errors import UserError, first_line
from pmexp.masking import masked
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Progress, progress_of

Label = str | int
LABELS = ("task", "model", "dataset", "variant", "system", "seed")
_MARKS = ("summary.json", "failure.json", "owner.json", "journal.jsonl", "config.yaml")
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as quick


@dataclass(frozen=True)
class FoundRun:
    run_id: str
    path: Path
    state: State
    labels: Mapping[str, Label] = field(default_factory=dict)
    progress: Progress = Progress()  # noqa: RUF009  frozen
    host: str = ""
    attempt: int = 0
    seconds: float = math.nan  # from the last start to its end, of a running one to now
    error: str = ""  # one line: why it has no result, or what in its folder cannot be read

    @property
    def is_settled(self) -> bool:
        """Whether it stays as it is."""
        return self.state in (State.finished, State.oom)


def experiments(runs_dir: Path) -> list[str]:
    """Names of the experiments under `runs_dir`. Raises UserError where there is no such folder."""
    if not runs_dir.is_dir():
        raise UserError(f"--runs-dir: {runs_dir} is not a folder; run something first, or name another place")
    return sorted(folder.name for folder in runs_dir.iterdir() if _is_experiment(folder))


def read_experiment(runs_dir: Path, name: str, known: Mapping[str, FoundRun] | None = None) -> list[FoundRun]:
    """Every run that is planned or has a folder, in the plan's order. Raises UserError for an unknown name.

    known: what was read before, by run id; what is settled is not read again.
    """
    folder = runs_dir / name
    if name not in experiments(runs_dir):
        there = ", ".join(experiments(runs_dir)) or "none yet, run one first"
        raise UserError(
            f"no experiment '{name}' in {runs_dir} (there are: {there}); --runs-dir names another place"
        )
    planned = _read_plan(folder / "plan.json")
    there_are = {path.name: planned.get(path.name) for path in folder.iterdir() if _is_run(path)}
    settled = {run_id: run for run_id, run in (known or {}).items() if run.is_settled}
    return [
        settled.get(run_id) or _read_run(folder / run_id, labels)
        for run_id, labels in (planned | dict(sorted(there_are.items()))).items()
    ]


def _is_experiment(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "plan.json").is_file() or any(map(_is_run, folder.iterdir())))


def _is_run(path: Path) -> bool:
    return any((path / mark).is_file() for mark in _MARKS)


def _read_plan(file: Path) -> dict[str, dict[str, Label] | None]:
    """The labels of each planned run."""
    if not file.is_file():
        return {}
    try:
        plan = {str(entry["run_id"]): _labels(entry) for entry in json.loads(file.read_text())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{file} is no list of runs; remove it, or start the sweep again") from None
    for run_id in plan:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run_id):
            raise UserError(f"{file}: {run_id!r} is no run id; remove the file, or start the sweep again")
    return dict(plan)


def _labels(told: Mapping[str, Any]) -> dict[str, Label]:
    return {label: told[label] for label in LABELS if isinstance(told.get(label), Label)}


def _read_run(path: Path, labels: Mapping[str, Label] | None) -> FoundRun:
    """The run of a folder that may be damaged, or made by somebody else: no content of it ends the list."""
    try:
        return _run_of(RunFolder(path), labels)
    except Exception as error:
        said = first_line(error) if isinstance(error, UserError) else f"{path} cannot be read: {error!r}"
        return FoundRun(path.name, path, State.failed, labels or {}, error=said)


def _run_of(folder: RunFolder, labels: Mapping[str, Label] | None) -> FoundRun:
    state = state_of(folder)
    if state is State.pending:
        return FoundRun(folder.path.name, folder.path, state, labels or {})
    owner, failure, unlabelled = folder.owner(), folder.failed(), ""
    progress = progress_of(folder.journal)
    error = folder.out_of_memory() if state is State.oom else str(failure.get("error", ""))
    if labels is None:
        labels, unlabelled = _labels_in(folder)
    damage = f"{folder.journal.name} has a line that is no record" if progress.damaged else ""
    return FoundRun(
        run_id=folder.path.name,
        path=folder.path,
        state=state,
        labels=labels,
        progress=progress,
        host=str(owner.get("host", "")),
        attempt=int(owner.get("attempt", 0)),
        seconds=_end_of(folder, state) - float(owner.get("started", math.nan)),
        error=masked("; ".join(part for part in (error, damage, unlabelled) if part)),
    )


def _end_of(folder: RunFolder, state: State) -> float:
    """When the last try ended, by the file that says so; the heartbeat of one that was killed."""
    if state is State.running:
        return time.time()
    mark = folder.summary if folder.is_finished() else folder.failure if folder.failed() else folder.heartbeat
    return mark.stat().st_mtime if mark.is_file() else math.nan


def _labels_in(folder: RunFolder) -> tuple[dict[str, Label], str]:
    """Of a run that is in no plan, and what is wrong where it has none."""
    try:
        if folder.is_finished():
            return _labels(json.loads(folder.summary.read_text())["labels"]), ""
        config = yaml.load((folder.path / "config.yaml").read_text(), Loader=_YAML)
        names = {group: config[group]["name"] for group in ("model", "dataset", "variant", "system")}
        return _labels({"task": f"{names['model']}/{names['dataset']}", "seed": config["seed"], **names}), ""
    except Exception as error:  # anybody may have written them
        return {}, f"it has no labels ({first_line(error)})"
