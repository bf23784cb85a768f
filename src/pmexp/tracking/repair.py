"""Brings trackers into agreement with the run folders, whatever happened to either of them."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from pmexp.config import TRACKERS as NAMES
from pmexp.config import RunConfig, TrackingConfig, read_config
from pmexp.errors import UserError, first_line, reason
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import read_run
from pmexp.run_folder.mirrored import mark_complete
from pmexp.run_folder.state import State
from pmexp.shown import counted
from pmexp.tracking.record import Record
from pmexp.tracking.tracker import Status, Tracker
from pmexp.tracking.trackers import TRACKERS, check_installed

_STATUS: dict[State, Status] = {
    State.finished: "FINISHED",
    State.oom: "FAILED",
    State.failed: "FAILED",
    State.interrupted: "KILLED",
    State.stale: "KILLED",
    State.pending: "KILLED",  # it has a folder, so it was begun
}


def repair(
    runs_dir: Path, name: str, uri: str | None = None, trackers: Collection[str] = ()
) -> Iterator[str]:
    """Yields a line for each run of experiment `name` that a tracker held otherwise and that was mended, one
    for their parent in MLflow if it was, and one with the totals.

    `trackers`: in place of each run's own, for runs that were made without them. `uri`: of MLflow, likewise;
    without `trackers` it is the one tracker.
    Where a folder lies now counts, not where it lay when the run was made. Runs that go on are left to their
    own mirrors. Where the runs were moved, files are not attached: MLflow keeps the old place. Doing it again
    changes nothing. Raises UserError where a tracker fails, once the others have all.
    """
    for tracker in trackers:
        if tracker not in NAMES:
            raise UserError(f"trackers: {tracker!r} is none; allowed are {', '.join(NAMES)}")
    folder = (runs_dir.expanduser() / name).resolve()
    files = sorted(folder.glob("*/config.yaml"))
    if not files:
        raise UserError(f"{folder}: there are no runs; check the experiment's name and runs_dir")
    mender = _Mender()
    counts: Counter[str] = Counter()
    for file in files:
        run_id = file.parent.name
        known = read_run(file.parent)
        try:
            if known.damage:
                raise UserError(known.damage)
            config = read_config(file)
            # A finished run is still claimed while its own mirror sends the end.
            is_claimed = RunFolder(file.parent).is_claimed()
        except UserError as error:
            counts["unreadable"] += 1
            yield f"{run_id}: left alone ({first_line(error)})"
            continue
        config.tracking = _chosen(config.tracking, uri, trackers)
        status = None if is_claimed else _STATUS.get(known.state)
        if not config.tracking.trackers or status is None:
            counts["untracked" if status else "running"] += 1
            continue
        changes = mender.settle(config, RunFolder(file.parent), status)
        counts["changed" if changes else "right"] += 1
        if changes:
            yield f"{run_id}: {', '.join(changes)}"
    yield from mender.end()
    yield f"{counted(len(files), 'run')}: " + ", ".join(
        f"{count} {kind}" for kind, count in sorted(counts.items())
    )


def _chosen(own: TrackingConfig, uri: str | None, trackers: Collection[str]) -> TrackingConfig:
    names = trackers or ("mlflow",) if uri else trackers or own.trackers
    chosen = replace(own, uri=uri or own.uri)
    for name in NAMES:
        setattr(chosen, name, name in names)
    return chosen


class _Mender:
    """Settles runs with their trackers. One that fails is left alone from then on."""

    def __init__(self) -> None:
        self._trackers: dict[str, Tracker] = {}
        self._failed: dict[str, UserError] = {}

    def settle(self, config: RunConfig, folder: RunFolder, status: Status) -> list[str]:
        changes = []
        several = len(config.tracking.trackers) > 1
        for name in config.tracking.trackers:
            if name in self._failed:
                continue
            try:
                mended = self._settle_one(name, config, folder, status)
            except UserError as error:
                self._failed[name] = error
                continue
            if mended:
                changes.append(f"{f'{name}: ' * several}{', '.join(mended)}")
        return changes

    def end(self) -> Iterator[str]:
        """Yields a line for what was changed beside the runs. Raises the first tracker's error."""
        for tracker in self._trackers.values():
            yield from tracker.changes()
        for error in self._failed.values():
            raise error

    def _settle_one(self, name: str, config: RunConfig, folder: RunFolder, status: Status) -> list[str]:
        check_installed([name])
        tracker = self._trackers.setdefault(name, TRACKERS[name]())
        try:
            run = tracker.open(config, Record(config, folder))
            changes = run.settle(status)
            mark_complete(folder.mirrored, name, run.where())
        except UserError:
            raise
        except Exception as error:  # a tracker's package's, SQLAlchemy's, requests' or the file system's
            raise UserError(
                f"{tracker.place(config)} fails ({reason(error)}); see to it and repair again, what is done "
                "stays"
            ) from error
        return changes
