"""The append-only journal of a run: the truth that trackers and reports are made from. Imports no torch."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of

_BLOCK_BYTES = 8192  # read at a time from the end: some 50 records


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int = 0  # 0: before its first
    total: int = 0  # steps planned; 0: not known
    loss: float = math.nan  # the last one of training
    damaged: bool = False  # a line that is no record was met


class Journal:
    """Writes one JSON object a line: metric, value, unit, direction, step, time (seconds since 1970).

    A value that is not finite is null. Lines reach the file whole and in order; `sync` puts them on disk.
    """

    def __init__(self, file: Path, keep_bytes: int = 0) -> None:
        """Opens `file`, keeping its first `keep_bytes` bytes: what a resumed run wrote by its checkpoint."""
        self._stream = file.open("ab")
        self._stream.truncate(keep_bytes)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        now = round(time.time(), 3)
        lines = []
        for name, value in metrics.items():
            metric = metric_of(name)
            record = {
                "metric": name,
                "value": value if math.isfinite(value) else None,
                "unit": metric.unit,
                "direction": metric.direction,
                "step": step,
                "time": now,
            }
            lines.append(json.dumps(record) + "\n")
        self._stream.write("".join(lines).encode())
        self._stream.flush()

    def sync(self) -> int:
        """Puts all lines on disk and returns their bytes."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._stream.tell()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class NoJournal:
    """The journal of a rank that writes none."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def sync(self) -> int:
        return 0


def read_journal(file: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole lines from byte `offset` on, each with the offset behind it. A cut last line is left.

    Raises UserError, with the line's number, at a line that is no record.
    """
    with file.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            record = _record(line)
            if record is None:
                stream.seek(0)
                number = stream.read(offset).count(b"\n") + 1
                raise UserError(
                    f"{file}, line {number} is no record (metric, value, step, time): the journal is damaged;"
                    " remove this run's folder and run it again"
                )
            offset += len(line)
            yield record, offset


def last_values(file: Path, up_to_step: int | None = None) -> dict[str, float]:
    """The last value of each metric, in the order of their first record; NaN where it was not finite."""
    last: dict[str, float] = {}
    for record, _ in read_journal(file):
        if up_to_step is None or record["step"] <= up_to_step:
            last[record["metric"]] = math.nan if record["value"] is None else record["value"]
    return last


def records_backwards(file: Path) -> Iterator[dict[str, Any] | None]:
    """The records from the last one on, None for a line that is no record; a cut last line is left.

    Only as much of the file is read, from its end, as is asked for.
    """
    with file.open("rb") as stream:
        start = stream.seek(0, os.SEEK_END)
        rest = b""  # behind `start`, of a line that begins before it
        is_last, block = True, _BLOCK_BYTES
        while start:
            size = min(start, block)
            block *= 2  # so that a file without line ends takes no time in square of its length
            start = stream.seek(start - size)
            first, *lines = (stream.read(size) + rest).split(b"\n")
            rest = first
            if is_last and lines:
                del lines[-1]  # empty, or cut
                is_last = False
            yield from (_record(line) for line in reversed(lines))
        if not is_last:
            yield _record(rest)


def progress_of(file: Path) -> Progress:
    """What the journal says of its run; of a long one only the first line and the end are read."""
    step, loss, damaged = 0, math.nan, False
    try:
        for record in records_backwards(file):
            if record is None:
                damaged = True
                continue
            step = step or record["step"]
            if record["metric"] == "train/loss":
                loss = math.nan if record["value"] is None else record["value"]
                break
        with file.open("rb") as stream:
            first = _record(stream.readline(_BLOCK_BYTES))
    except FileNotFoundError:
        return Progress()
    planned = first and first["metric"] == "progress/steps_total" and first["value"]
    return Progress(step, int(planned or 0), loss, damaged)


def _record(line: bytes) -> dict[str, Any] | None:
    """The line as a record with at least metric, value, step and time; None for any other line."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_one = (
        isinstance(found, dict)
        and isinstance(found.get("metric"), str)
        and isinstance(found.get("step"), int)
        and isinstance(found.get("time"), int | float)
        and isinstance(found.get("value", ""), int | float | None)
    )
    return found if is_one else None
