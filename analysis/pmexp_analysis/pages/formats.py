"""Text and tables as Markdown, and lists of records as CSV: whatever a name holds, it is shown as text."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

import orjson

from pmexp_analysis.pages.tables import Table

_MARKS = re.compile(r"[\\`*~$|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])|@(?=\w)|:(?=//)|(?<=www)\.")
_OF_NOTE = re.compile(r"[\\`*~$|_\]@&<\r\n\t]|://|www|^\s|\s$")  # what `inline` may change
_ENTITIES = {"&": "&amp;", "<": "&lt;"}
_AT_START = re.compile(r"[#+=\[-](?!\d|$)|\d+(?P<point>[.)])(?=\s|$)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown, the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(table.headings) - 1)]
    lines = [list(map(inline, line)) for line in (table.headings, *table.cells)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def inline(text: str) -> str:
    """`text` inside a line of Markdown: no markup, HTML, link, formula or line end is left in it."""
    if not _OF_NOTE.search(text):  # most cells are numbers
        return text
    text = re.sub(r"[&<]", lambda sign: _ENTITIES[sign[0]], re.sub(r"[\r\n\t]", " ", text).strip())
    return _MARKS.sub(r"\\\g<0>", text)


def line(text: str) -> str:
    """`text` as a line of its own, which begins no heading, list or rule either."""
    text = re.sub(r"^>", "&gt;", inline(text))
    if start := _AT_START.match(text):
        place = start.start("point") if start["point"] else 0
        return f"{text[:place]}\\{text[place:]}"
    return text


def records_csv(records: Sequence[Any]) -> str:
    """Dataclasses of one type as CSV, a column a field; nothing for None, lists joined by blanks.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    if not records:
        return ""
    names = list(vars(records[0]))
    columns = [_column([getattr(record, name) for record in records]) for name in names]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return buffer.getvalue()


def _column(values: list[Any]) -> list[Any]:
    if set(map(type, values)) <= {float, int, type(None)}:  # numbers as JSON writes them, which is quick
        return orjson.dumps(values).decode()[1:-1].replace("null", "").split(",")
    return [_no_formula(_joined(value)) for value in values]


def _joined(value: Any) -> Any:
    if isinstance(value, dict):
        return " ".join(f"{key}:{seed}" for key, seeds in value.items() for seed in seeds)
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
