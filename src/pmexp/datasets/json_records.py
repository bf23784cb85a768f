"""Reads objects out of a JSON file: those of one list, or one a line."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmexp.datasets.text_lines import Unreadable, text_lines


def records(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, or of lines that hold one each."""
    lines = text_lines(file)
    blank, first = 0, ""
    for first in lines:
        if first.strip():
            break
        blank += 1
    if first.lstrip().startswith("["):
        for number, record in enumerate(_parsed(first + "".join(lines)), start=1):
            yield _object(record, f"row {number}")
        return
    for number, line in enumerate([first, *lines], start=blank + 1):
        if line.strip():
            yield _object(_parsed(line, number), f"line {number}")


def _parsed(text: str, line: int | None = None) -> Any:
    where = "" if line is None else f"line {line}: "
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        column = f"column {error.colno}" if line else f"line {error.lineno} column {error.colno}"
        raise Unreadable(f"{where}{error.msg} at {column}") from None
    except RecursionError:
        raise Unreadable(f"{where}it is nested too deeply") from None
    except Unreadable as error:
        raise Unreadable(f"{where}{error}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Unreadable(f"an object has {name!r} twice")
    return record


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"{where} is no object of columns")
    return value
