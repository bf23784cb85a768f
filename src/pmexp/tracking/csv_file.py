"""Mirrors a run to metrics.csv in its folder: a row for each value, with the run's labels.

The tables of several runs are one table, whose columns are the same: ``pandas.concat(map(pandas.read_csv,
Path("runs/demo").glob("*/metrics.csv")))``.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from pmexp.config import RunConfig
from pmexp.tracking.record import LoggedValue, Record
from pmexp.tracking.run_file import RunFile
from pmexp.tracking.tracker import Tracker

FILE = "metrics.csv"
_COLUMNS = ("metric", "step", "time", "value")  # time: seconds since 1970


class CsvTracker(Tracker):
    """Opens metrics.csv."""

    title = FILE

    def place(self, config: RunConfig) -> str:
        return f"tracking.csv: {config.folder / FILE}"

    def open(self, config: RunConfig, record: Record) -> "CsvFile":
        return CsvFile(record)


class CsvFile(RunFile):
    """Keeps a run's metrics.csv. What is not a number is nan, which pandas reads as such."""

    def files(self) -> list[Path]:
        return [file for file in [self.new_file()] if file.exists()]

    def new_file(self) -> Path:
        return self._record.folder.path / FILE

    def head(self, first: LoggedValue | None) -> bytes:
        return _rows([("run_id", *self._record.labels, *_COLUMNS)])

    def encoded(self, values: Sequence[LoggedValue]) -> bytes:
        same = (self._record.run_id, *self._record.labels.values())
        return _rows(
            (*same, metric, step, f"{time / 1000:.3f}", "nan" if value is None else repr(float(value)))
            for metric, time, step, value in values
        )


def _rows(rows: Iterable[Sequence[str | int]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
