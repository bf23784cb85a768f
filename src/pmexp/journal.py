"""The append-only journal of a run: the truth that trackers and reports are made from. Imports no torch."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pmexp.metrics.catalog import metric_of


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
    """The whole lines from byte `offset` on, each with the offset behind it. A cut last line is left."""
    with file.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset


def last_values(file: Path, up_to_step: int | None = None) -> dict[str, float]:
    """The last value of each metric, in the order of their first record; NaN where it was not finite."""
    last: dict[str, float] = {}
    for record, _ in read_journal(file):
        if up_to_step is None or record["step"] <= up_to_step:
            last[record["metric"]] = math.nan if record["value"] is None else record["value"]
    return last
