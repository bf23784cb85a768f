"""Reads the lines of a journal: onwards, from the end, and all at once as columns.

A line is a JSON object with metric (text), value (a number, or null for what was not finite), step, time, and
the unit and direction of the metric. A last line without its end was cut by a kill and is left out.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import IO, Any

import orjson

from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of
from pmexp.run_folder.files import opened, parsed_json, read_content

_BLOCK_BYTES = 8192  # read at a time from the end: some 50 lines
_COLUMNS = ("metric", "unit", "direction", "step", "value", "time")
_CELLS = itemgetter(*_COLUMNS)


@dataclass(frozen=True)
class RunProgress:
    """How far a run has come."""

    step: int = 0  # 0: before its first
    total: int = 0  # steps planned; 0: not known
    loss: float = math.nan  # the last one of training


@dataclass  # thousands are made: a frozen one takes three times as long
class Curve:
    """The lines of one run in the order written: five columns of one length, not finite = NaN."""

    metrics: Sequence[str] = ()
    units: Sequence[str] = ()
    directions: Sequence[str] = ()
    steps: Sequence[float] = ()
    values: Sequence[float] = ()
    started: float = math.inf  # seconds since 1970, of the first


def read_lines(file: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole lines from byte `offset` on, each with the offset behind it.

    Raises UserError, with its number, at a line that is none of a journal.
    """
    with opened(file) as stream:
        stream.seek(offset)
        for content in stream:
            if not content.endswith(b"\n"):
                return
            line = _parsed(content)
            if line is None:
                stream.seek(0)
                raise _damaged(file, stream.read(offset).count(b"\n") + 1)
            offset += len(content)
            yield line, offset


def last_values(stream: IO[bytes], up_to_step: int | None = None) -> dict[str, float]:
    """The last value of each metric, in the order of their first line; NaN where it was not finite."""
    last: dict[str, float] = {}
    stream.seek(0)
    for content in stream:
        if (line := _parsed(content)) and (up_to_step is None or line["step"] <= up_to_step):
            last[line["metric"]] = math.nan if line["value"] is None else line["value"]
    return last


def not_finite_in(stream: IO[bytes]) -> dict[str, tuple[int, int, int]]:
    """Each loss and score that was not finite: the first step at which, how often, and of how many values."""
    steps: dict[str, list[int | None]] = {}
    stream.seek(0)
    for content in stream:
        if (line := _parsed(content)) and metric_of(line["metric"]).is_loss_or_score:
            steps.setdefault(line["metric"], []).append(line["step"] if line["value"] is None else None)
    wrong = {name: [step for step in told if step is not None] for name, told in steps.items()}
    return {name: (told[0], len(told), len(steps[name])) for name, told in wrong.items() if told}


def lines_backwards(file: Path) -> Iterator[dict[str, Any]]:
    """The lines from the last one on, without those that are none of a journal.

    Only as much of the file is read, from its end, as is asked for.
    """
    with opened(file) as stream:
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
            yield from filter(None, map(_parsed, reversed(lines)))
        if not is_last:
            yield from filter(None, [_parsed(rest)])


def progress_of(file: Path) -> RunProgress:
    """Says how far a run has come by its journal; of a long one only the first line and the end are read.

    A file that cannot be read says nothing.
    """
    step, loss = 0, math.nan
    try:
        for line in lines_backwards(file):
            step = step or line["step"]
            if line["metric"] == "train/loss":
                loss = math.nan if line["value"] is None else line["value"]
                break
        with opened(file) as stream:
            first = _parsed(stream.readline(_BLOCK_BYTES))
    except (OSError, UserError):
        return RunProgress()
    planned = first and first["metric"] == "progress/steps_total" and first["value"]
    return RunProgress(step, int(planned or 0), loss)


def read_curve(file: Path) -> Curve:
    """Returns all lines as columns, in one pass; no lines where there is no file.

    Raises UserError for a file that cannot be read, and, with its number, for a line that is none of a
    journal.
    """
    return curve_in(read_content(file) or b"", file)


def curve_in(content: bytes, file: Path | str) -> Curve:
    """Returns what read_curve() does for a file whose `content` was read already."""
    whole, _, _ = content.rpartition(b"\n")
    if (curve := _curve_at_once(whole)) is not None:
        return curve
    lines = whole.split(b"\n") if whole else []
    parsed = []
    for number, line in enumerate(lines, start=1):
        entry = _parsed(line)
        if entry is None:
            raise _damaged(file, number)
        parsed.append(entry)
    return _columns(parsed)


def _curve_at_once(lines: bytes) -> Curve | None:
    """All lines by one call of the parser and checks of whole columns; None if they find any fault."""
    try:
        parsed: list[Any] = orjson.loads(b"[" + lines.replace(b"\n", b",") + b"]")
        columns = list(zip(*map(_CELLS, parsed), strict=True)) or [()] * len(_COLUMNS)
        metrics, units, directions, steps, values, times = columns
        are_right = (
            set(map(type, values)) <= {float, int, type(None)},
            set(map(type, steps)) <= {int},
            set(map(type, times)) <= {float, int},
            max(map(abs, steps), default=0) < _LARGEST,
            max(map(abs, times), default=0) <= _LARGEST,
            len(parsed) == (lines.count(b"\n") + 1 if lines else 0),
        )
        return _curve(metrics, units, directions, steps, values, times) if all(are_right) else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _columns(lines: list[dict[str, Any]]) -> Curve:
    told = [{"unit": "", "direction": "none"} | line for line in lines]
    return _curve(*([line[name] for line in told] for name in _COLUMNS))


def _curve(
    metrics: Sequence[str],
    units: Sequence[str],
    directions: Sequence[str],
    steps: Sequence[int],
    values: Sequence[float | None],
    times: Sequence[float],
) -> Curve:
    import numpy as np  # lists of runs do without it, and its import takes a fifth of their time

    return Curve(
        metrics=list(map(intern, metrics)),  # one text in memory for thousands of lines
        units=list(map(intern, units)),
        directions=list(map(intern, directions)),
        steps=np.array(steps, dtype=np.float64),  # type: ignore[arg-type]
        values=np.array(values, dtype=np.float64),  # type: ignore[arg-type]
        started=float(times[0]) if times else math.inf,
    )


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Returns the line of a journal, None for any other line."""
    try:
        parsed = parsed_json(line)
    except (ValueError, RecursionError):
        return None
    return parsed if _is_line(parsed) else None


_LARGEST = 2**63  # no step and no time in seconds is larger
_FLOAT = 1.7976931348623157e308  # the largest finite float64: JSON has no words for NaN and infinities


def _is_line(parsed: Any) -> bool:
    """Whether it has at least metric, value, step and time, and numbers that a float64 holds."""
    try:
        return (
            type(parsed["metric"]) is str
            and type(parsed["step"]) is int
            and abs(parsed["step"]) < _LARGEST
            and _is_number(parsed["time"], _LARGEST)
            and (parsed["value"] is None or _is_number(parsed["value"], _FLOAT))
            and type(parsed.get("unit", "")) is str
            and type(parsed.get("direction", "")) is str
        )
    except (TypeError, KeyError, AttributeError):
        return False


def _is_number(value: Any, largest: float) -> bool:
    return (type(value) is float or type(value) is int) and abs(value) <= largest


def _damaged(file: Path | str, number: int) -> UserError:
    return UserError(
        f"{file}, line {number} is no line of a journal (metric, value, step, time): the journal is damaged;"
        " remove this run's folder and run it again"
    )
