"""Keeps a file in a run's folder whose content follows from the run's record alone, byte for byte.

While the run goes on the file is the beginning of what it will be, so it is appended to; where it is anything
else, it is written anew.
"""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from pmexp.run_folder.files import read_content, write_atomically
from pmexp.shown import counted
from pmexp.tracking.record import LoggedValue, Record
from pmexp.tracking.tracker import MirroredRun, Status


class RunFile(MirroredRun):
    """Keeps one file in agreement with a run's folder."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._offset = 0  # where in the journal what was written ends
        self._has_head = False

    @abstractmethod
    def files(self) -> list[Path]:
        """The files of this tracker that are in the run's folder; one is as it should be."""

    @abstractmethod
    def new_file(self) -> Path:
        """The path that content goes to that no file has the beginning of."""

    @abstractmethod
    def head(self, first: LoggedValue | None) -> bytes:
        """What the file begins with. `first`: the run's first value; None while there is none, and then the
        head may be empty and still to come."""

    @abstractmethod
    def encoded(self, values: Sequence[LoggedValue]) -> bytes:
        """The values as the file holds them."""

    def end(self, status: Status, journal: Sequence[LoggedValue]) -> bytes:
        """What the file has behind the values of a run that ended with `status`."""
        return b""

    def settle(self, status: Status) -> list[str]:
        journal, offset = self._record.values()
        last_step = max((value.step for value in journal), default=0)
        finals = [value._replace(step=last_step) for value in self._record.final_values(journal)]
        values = journal + finals
        wanted = self.head(values[0] if values else None) + self.encoded(values)
        if status != "RUNNING":
            wanted += self.end(status, journal)
        changes = self._replaced(wanted)
        self._offset, self._has_head = offset, bool(wanted)
        return changes

    def follow(self) -> None:
        values, offset = self._record.values(self._offset)
        if values:
            (file,) = self.files()
            head = b"" if self._has_head else self.head(values[0])
            _append(file, head + self.encoded(values))
            self._offset, self._has_head = offset, True

    def where(self) -> dict[str, str]:
        return {"file": self.files()[0].name}

    def _replaced(self, wanted: bytes) -> list[str]:
        """Makes one file hold what is wanted, and says in words what was changed."""
        files = self.files()
        if len(files) == 1 and wanted.startswith(present := read_content(files[0]) or b""):
            missing = wanted[len(present) :]
            _append(files[0], missing)
            return [f"{counted(len(missing), 'byte')} added"] if missing else []
        new = self.new_file()
        write_atomically(new, wanted)
        for file in files:
            if file != new:
                file.unlink()
        return ["written anew" if files else "created"]


def _append(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
