"""Mirrors one journal to MLflow in a thread that training never waits for.

The journal is the truth and the mirror follows its file: the training thread calls no tracker. A tracker that
fails is asked again until the run ends; what it lacks then is sent by `pmexp.tracking.repair`.
"""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.tracking.database import OpenExperiment, reason
from pmexp.tracking.mlflow_run import MlflowRun, Status
from pmexp.tracking.parent import ParentRun
from pmexp.tracking.record import Record

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


def warn_of_lack(experiment: str, why: str) -> None:
    """Says that MLflow lacks a part of a run, and how it gets it."""
    log.warning(
        "MLflow lacks a part of this run, its folder has all (%s); when the tracker works: "
        "python -m pmexp.runs repair %s", why, experiment,
    )  # fmt: skip


class NoMirror:
    """Mirrors nothing: what tracking=off asks for."""

    reference: Mapping[str, str] | None = None

    def finish(self, status: Status) -> None: ...


class Mirror:
    """Mirrors the journal of rank 0. The constructor waits for the first try and `finish` for the last, both
    for a bounded time."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        assert config.tracking.uri is not None
        self._config, self._uri = config, config.tracking.uri
        self._record = Record(config, folder)
        self._run: MlflowRun | None = None  # None: to be opened and settled, at first and after a failure
        self._status: Status = "RUNNING"
        self._error = ""  # why the last try that failed did so
        self._answered = self._complete = False
        self._tried, self._ended, self._given_up = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()
        self._tried.wait(_START_S)

    @property
    def reference(self) -> Mapping[str, str]:
        """Where the run is mirrored to, for its summary; tracking.json is there once all has arrived."""
        return {"uri": self._uri}

    def finish(self, status: Status) -> None:
        """Waits until MLflow has what the folder has, its summary included, and the run's true status.

        What does not arrive in time costs a warning.
        """
        self._status = status
        self._ended.set()
        in_vain = bool(self._error) and not self._answered
        self._thread.join(longest_end(status, answered=not in_vain))
        self._given_up.set()
        if not self._complete:
            warn_of_lack(self._config.name, self._error or "it takes too long")

    def _follow(self) -> None:
        """Tries again and again, in the thread, until MLflow has all or there is no more time."""
        pause = _PAUSE_S
        while not self._given_up.is_set():
            status = self._status
            succeeded = self._try(status)
            self._tried.set()
            if status == "RUNNING":
                self._ended.wait(self._config.tracking.interval_s if succeeded else pause)
            elif self._complete:
                return
            else:
                self._given_up.wait(min(pause, _LAST_PAUSE_S))
            pause = _PAUSE_S if succeeded else min(2 * pause, _LONGEST_PAUSE_S)

    def _opened(self) -> MlflowRun:
        experiment = OpenExperiment(self._uri, self._config.name, Path(self._config.runs_dir))
        return MlflowRun(ParentRun(experiment), self._record)

    def _try(self, status: Status) -> bool:
        """Brings MLflow up to date; returns whether that succeeded. Warns of the first failure in a row."""
        try:
            if self._run and status == "RUNNING":
                self._run.follow()
            else:
                run = self._run or self._opened()
                run.settle(status)
                self._run = run
            if status != "RUNNING":
                self._record.mark_complete(self._uri, self._run.id)
                self._complete = True
        except Exception as error:
            if self._run or not self._tried.is_set():
                log.warning("MLflow failed; training goes on and it is tried again (%s)", reason(error))
            self._run, self._error = None, reason(error)
            return False
        self._answered = True
        return True
