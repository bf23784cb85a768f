"""Writes the append-only journal of a run: the truth that trackers and reports are made from."""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pmexp.metrics.catalog import metric_of
from pmexp.run_folder.journal_lines import last_values, not_finite_in


@dataclass(frozen=True)
class JournalDigest:
    """What a journal was like when its run ended."""

    bytes: int
    blake2b: str


def digest_of_journal(content: bytes) -> JournalDigest:
    """The length and digest of a whole journal."""
    return JournalDigest(len(content), hashlib.blake2b(content, digest_size=16).hexdigest())


class Journal:
    """Writes one JSON object a line: metric, value, unit, direction, step, time (seconds since 1970).

    A value that is not finite is null. Lines reach the file whole and in order; `sync` puts them on disk.
    """

    def __init__(self, file: Path, keep_bytes: int = 0) -> None:
        """Opens `file`, keeping its first `keep_bytes` bytes: what a resumed run wrote by its checkpoint."""
        self._stream = file.open("a+b")
        self._stream.truncate(keep_bytes)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line for each metric."""
        now = round(time.time(), 3)
        lines = []
        for name, value in metrics.items():
            metric = metric_of(name)
            line = {
                "metric": name,
                "value": value if math.isfinite(value) else None,
                "unit": metric.unit,
                "direction": metric.direction,
                "step": step,
                "time": now,
            }
            lines.append(json.dumps(line) + "\n")
        self._stream.write("".join(lines).encode())
        self._stream.flush()

    def sync(self) -> int:
        """Puts all lines on disk and returns their bytes."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._stream.seek(0, os.SEEK_END)

    def last_values(self, up_to_step: int | None = None) -> dict[str, float]:
        """journal_lines.last_values() of this very file, whatever has its name by now."""
        return last_values(self._stream, up_to_step)

    def not_finite(self) -> str:
        """Says which losses and scores were not finite, and when; empty where all were."""
        told = not_finite_in(self._stream)
        return ", ".join(
            f"{name} at step {step} ({count} of {of_all} values)"
            for name, (step, count, of_all) in told.items()
        )

    def digest(self) -> JournalDigest:
        self._stream.flush()
        self._stream.seek(0)
        return digest_of_journal(self._stream.read())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class NoJournal:
    """The journal of a rank that writes none: what it reads is rank 0's, which may still be written."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def sync(self) -> int:
        return 0

    def last_values(self, up_to_step: int | None = None) -> dict[str, float]:
        if not self._file.is_file():
            return {}
        with self._file.open("rb") as stream:
            return last_values(stream, up_to_step)

    def not_finite(self) -> str:
        return ""

    def digest(self) -> None:
        return None
