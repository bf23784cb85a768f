"""Declares what a tracker is to the mirror and to the repair. `trackers.py` names those that there are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from pmexp.config import RunConfig
from pmexp.tracking.record import Record

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]  # KILLED: it may go on


class MirroredRun(ABC):
    """Keeps what one tracker has of one run in agreement with the run's folder.

    Whatever fails may be tried again: by another object, whose `settle` begins with what the tracker has.
    """

    @abstractmethod
    def settle(self, status: Status) -> list[str]:
        """Makes the tracker agree with the folder, and says in words what it had to change: nothing is []."""

    @abstractmethod
    def follow(self) -> None:
        """Sends what the journal got since the last time; after a `settle`."""

    @abstractmethod
    def where(self) -> Mapping[str, str]:
        """Says for the run's record where the tracker has the run; after a `settle`."""


class Tracker(ABC):
    """Opens runs of one tracker. No package is imported before a run is opened."""

    title: ClassVar[str]  # its name in sentences
    package: ClassVar[str | None] = None  # what has to be installed; pmexp's extra has the tracker's name

    @abstractmethod
    def place(self, config: RunConfig) -> str:
        """Names the key and the place that a run is mirrored to, for errors."""

    @abstractmethod
    def open(self, config: RunConfig, record: Record) -> MirroredRun:
        """Opens what the tracker has of a run, or will have. Raises what the tracker's package raises."""

    def changes(self) -> list[str]:
        """Says in words what was changed beside the runs since this object was made."""
        return []
