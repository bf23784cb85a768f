"""Brings MLflow into agreement with the run folders, whatever happened to either of them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pmexp.config import RunConfig, Tracker, TrackingConfig, read_config
from pmexp.errors import UserError, first_line
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import read_run
from pmexp.run_folder.state import State
from pmexp.tracking.database import OpenExperiment, reason
from pmexp.tracking.mlflow_run import MlflowRun, Status
from pmexp.tracking.parent import ParentRun
from pmexp.tracking.record import Record

_STATUS: dict[State, Status] = {
    State.finished: "FINISHED",
    State.oom: "FAILED",
    State.failed: "FAILED",
    State.interrupted: "KILLED",
    State.stale: "KILLED",
    State.pending: "KILLED",  # it has a folder, so it was begun
}


def repair(runs_dir: Path, name: str, uri: str | None = None) -> Iterator[str]:
    """Yields a line for each run of experiment `name` that MLflow held otherwise and that was mended, one for
    their parent if it was, and one with the totals.

    `uri`: the tracker of all of them, in place of each one's own: for runs that were made without one.
    Where a folder lies now counts, not where it lay when the run was made. Runs that go on are left to their
    own mirrors. Where the runs were moved, files are not attached: MLflow keeps the old place. Doing it again
    changes nothing. Raises UserError where the tracker fails.
    """
    folder = (runs_dir.expanduser() / name).resolve()
    files = sorted(folder.glob("*/config.yaml"))
    if not files:
        raise UserError(f"{folder}: there are no runs; check the experiment's name and runs_dir")
    parents: dict[str, ParentRun] = {}  # by tracker
    counts: Counter[str] = Counter()
    for file in files:
        run_id = file.parent.name
        known = read_run(file.parent)
        try:
            if known.damage:
                raise UserError(known.damage)
            config = read_config(file)
        except UserError as error:
            counts["unreadable"] += 1
            yield f"{run_id}: left alone ({first_line(error)})"
            continue
        run, status = RunFolder(file.parent), _STATUS.get(known.state)
        if uri is not None:
            config.tracking = TrackingConfig(uri=uri)
        if config.tracking.kind is Tracker.off or status is None:
            counts["untracked" if status else "running"] += 1
            continue
        changes = _settle(config, run, status, parents)
        counts["changed" if changes else "right"] += 1
        if changes:
            yield f"{run_id}: {', '.join(changes)}"
    for parent in parents.values():
        if parent.changes:
            yield f"parent: {', '.join(parent.changes)}"
    yield f"{len(files)} runs: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def _settle(config: RunConfig, folder: RunFolder, status: Status, parents: dict[str, ParentRun]) -> list[str]:
    uri = str(config.tracking.uri)
    record = Record(config, folder)
    try:
        if uri not in parents:
            parents[uri] = ParentRun(OpenExperiment(uri, config.name, Path(config.runs_dir)))
        run = MlflowRun(parents[uri], record)
        changes = run.settle(status)
    except UserError:
        raise
    except Exception as error:  # MLflow's, SQLAlchemy's, requests' or the file system's
        raise UserError(
            f"tracking.uri: {uri} fails ({reason(error)}); see to it and repair again, what is done stays"
        ) from error
    record.mark_complete(uri, run.id)
    return changes
