"""Mirrors one journal to trackers, each in a thread that training never waits for.

The journal is the truth and the mirrors follow its file: the training thread calls no tracker. A tracker that
fails is asked again until the run ends; what it lacks then is sent by `pmexp.tracking.repair`.
"""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pmexp.config import RunConfig
from pmexp.errors import reason
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.mirrored import mark_complete, mark_lacking
from pmexp.tracking.record import Record
from pmexp.tracking.tracker import MirroredRun, Status
from pmexp.tracking.trackers import TRACKERS

log = logging.getLogger(__name__)

_START_S = (
    20.0  # waited for the first try, which imports mlflow and may make the database: it would disturb steps
)
_END_S = 60.0  # what is left when the run has ended may take so long to arrive
_SHORT_END_S = 10.0  # it may take so long where the run has to make room, or the tracker never answered
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # between a try that failed and the next; it doubles
_LAST_PAUSE_S = 2.0  # no pause is longer once the run has ended


def longest_end(status: Status, answered: bool = True) -> float:
    """How many seconds what is left when a run has ended may take to arrive."""
    return _SHORT_END_S if status == "KILLED" or not answered else _END_S


def record_lack(config: RunConfig, folder: RunFolder, tracker: str, why: str) -> None:
    """Puts on record that a tracker lacks a part of a run, and says how it gets it."""
    with suppress(OSError):  # a full disk: then the tracker has no mark that it has all, either
        mark_lacking(folder.mirrored, tracker, why)
    log.warning(
        "%s lacks a part of this run, its folder has all (%s); when the tracker works: "
        "pmexp runs repair %s", TRACKERS[tracker].title, why, config.name,
    )  # fmt: skip


def reference(config: RunConfig) -> Mapping[str, Any]:
    """Where a run is mirrored to, for its summary; tracking.json says what has arrived."""
    chosen: dict[str, Any] = {"trackers": list(config.tracking.trackers)}
    return chosen | ({"uri": config.tracking.uri} if config.tracking.mlflow else {})


class NoMirror:
    """Mirrors nothing: what tracking=off asks for."""

    reference: Mapping[str, Any] | None = None

    def begin(self) -> None: ...

    def finish(self, status: Status) -> None: ...


class Mirror:
    """Mirrors the journal of rank 0. The constructor waits for each tracker's first try and `finish` for the
    last, both for a bounded time."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self.reference = reference(config)
        self._config, self._folder = config, folder
        self._followers = [Follower(name, config, folder) for name in config.tracking.trackers]
        deadline = time.monotonic() + _START_S
        for follower in self._followers:
            follower.tried.wait(max(0.0, deadline - time.monotonic()))

    def begin(self) -> None:
        """Does nothing: its threads began with it."""

    def finish(self, status: Status) -> None:
        """Waits until the trackers have what the folder has, its summary included, and the run's true status.

        What does not arrive in time costs a warning, and is on record.
        """
        began = time.monotonic()
        for follower in self._followers:
            follower.end(status)
        for follower in self._followers:
            if lack := follower.lack_at(began):
                record_lack(self._config, self._folder, follower.tracker, lack)


class Follower:
    """Keeps one tracker up to date with one run's folder, from a thread."""

    def __init__(self, tracker: str, config: RunConfig, folder: RunFolder) -> None:
        self.tracker, self._config, self._folder = tracker, config, folder
        self._record = Record(config, folder)
        self._run: MirroredRun | None = None  # None: to be opened and settled, at first and after a failure
        self._status: Status = "RUNNING"
        self._error = ""  # why the last try that failed did so
        self._answered = self._complete = False
        self.tried, self._ended, self._given_up = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()

    def end(self, status: Status) -> None:
        """Tells the thread that the run has ended."""
        self._status = status
        self._ended.set()

    def lack_at(self, began: float) -> str:
        """Waits for the thread, as long as may be since `began`; says why the tracker lacks a part of the
        run, and nothing where it has all."""
        in_vain = bool(self._error) and not self._answered
        left = began + longest_end(self._status, answered=not in_vain) - time.monotonic()
        self._thread.join(max(0.0, left))
        self._given_up.set()
        return "" if self._complete else self._error or "it takes too long"

    def _follow(self) -> None:
        """Tries again and again, in the thread, until the tracker has all or there is no more time."""
        pause = _PAUSE_S
        while not self._given_up.is_set():
            status = self._status
            succeeded = self._try(status)
            self.tried.set()
            if status == "RUNNING":
                self._ended.wait(self._config.tracking.interval_s if succeeded else pause)
            elif self._complete:
                return
            else:
                self._given_up.wait(min(pause, _LAST_PAUSE_S))
            pause = _PAUSE_S if succeeded else min(2 * pause, _LONGEST_PAUSE_S)

    def _try(self, status: Status) -> bool:
        """Brings the tracker up to date; returns whether that succeeded. Warns of the first failure in a
        row."""
        tracker = TRACKERS[self.tracker]
        try:
            if self._run and status == "RUNNING":
                self._run.follow()
            else:
                run = self._run or tracker().open(self._config, self._record)
                run.settle(status)
                self._run = run
            if status != "RUNNING":
                mark_complete(self._folder.mirrored, self.tracker, self._run.where())
                self._complete = True
        except Exception as error:
            if self._run or not self.tried.is_set():
                log.warning(
                    "%s failed; training goes on and it is tried again (%s)", tracker.title, reason(error)
                )
            self._run, self._error = None, reason(error)
            return False
        self._answered = True
        return True
