"""Brings MLflow into agreement with the run folders, whatever happened to either of them."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from omegaconf.errors import OmegaConfBaseException

from pmexp.config import RunConfig, Tracker, from_dict
from pmexp.errors import UserError, first_line
from pmexp.run_folder import RunFolder
from pmexp.tracking.database import OpenExperiment, reason
from pmexp.tracking.mlflow_run import MlflowRun, Status
from pmexp.tracking.record import Record


def repair(runs_dir: Path, name: str) -> Iterator[str]:
    """Yields a line for each run of experiment `name` that MLflow had otherwise, and one with the totals.

    Where a folder lies now counts, not where it lay when the run was made. Runs that go on are left to their
    own mirrors. Where the runs were moved, files are not attached: MLflow keeps the old place. Doing it again
    changes nothing. Raises UserError where the tracker fails.
    """
    folder = (runs_dir.expanduser() / name).resolve()
    files = sorted(folder.glob("*/config.yaml"))
    if not files:
        raise UserError(f"{folder}: there are no runs; check the experiment's name and runs_dir")
    experiments: dict[str, OpenExperiment] = {}
    counts: Counter[str] = Counter()
    for file in files:
        run_id = file.parent.name
        try:
            config = _config_at(file)
        except (UserError, OmegaConfBaseException, yaml.YAMLError) as error:
            counts["unreadable"] += 1
            yield f"{run_id}: left alone, config.yaml cannot be read by this version ({first_line(error)})"
            continue
        run = RunFolder(config)
        status = _status_of(run)
        if config.tracking.kind is Tracker.off or status is None:
            counts["untracked" if status else "running"] += 1
            continue
        changes = _settle(config, run, status, experiments)
        counts["changed" if changes else "right"] += 1
        if changes:
            yield f"{run_id}: {', '.join(changes)}"
    yield f"{len(files)} runs: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def _settle(
    config: RunConfig, folder: RunFolder, status: Status, experiments: dict[str, OpenExperiment]
) -> list[str]:
    uri = str(config.tracking.uri)
    record = Record(config, folder)
    try:
        if uri not in experiments:
            experiments[uri] = OpenExperiment(config)
        run = MlflowRun(experiments[uri], record)
        changes = run.settle(status)
    except UserError:
        raise
    except Exception as error:  # MLflow's, SQLAlchemy's, requests' or the file system's
        raise UserError(
            f"tracking.uri: {uri} fails ({reason(error)}); see to it and repair again, what is done stays"
        ) from error
    record.mark_complete(uri, run.id)
    return changes


def _config_at(file: Path) -> RunConfig:
    """The configuration of a run as it would be where it lies now."""
    values = yaml.safe_load(file.read_text())
    tracking = values["tracking"]
    if tracking["uri"] == f"sqlite:///{values['runs_dir']}/mlflow.db":  # that of the folder, moved with it
        tracking["uri"] = None
    return from_dict(values | {"name": file.parents[1].name, "runs_dir": str(file.parents[2])})


def _status_of(folder: RunFolder) -> Status | None:
    """None for a run that goes on."""
    if folder.is_finished():
        return "FAILED" if folder.out_of_memory() else "FINISHED"
    if folder.failure.is_file():
        return "KILLED" if json.loads(folder.failure.read_text())["status"] == "interrupted" else "FAILED"
    try:
        with FileLock(folder.path / ".lock", timeout=0):
            return "KILLED"
    except Timeout:
        return None
