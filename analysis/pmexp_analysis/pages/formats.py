"""Text and tables as Markdown, and lists of records as CSV: whatever a name holds, it is shown as text."""

import re
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import orjson

from pmexp_analysis.pages.tables import Table

_MARKS = re.compile(r"[\\`*~$|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])|@(?=\w)|:(?=//)|(?<=www)\.")
_OF_NOTE = re.compile(r"[\\`*~$|_\]@&<\r\n\t]|://|www|^\s|\s$")  # what `inline` may change
_ENTITIES = {"&": "&amp;", "<": "&lt;"}
_AT_START = re.compile(r"[#+=\[-](?!\d|$)|\d+(?P<point>[.)])(?=\s|$)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_QUOTED = (",", '"', "\n", "\r")  # what a cell of CSV is put in quotes for


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
    values = zip(*map(attrgetter(*names), records), strict=True)
    lines = [",".join(names), *map(",".join, zip(*map(_column, values), strict=True))]
    return "\n".join(lines) + "\n"


def _column(values: Sequence[Any]) -> Iterable[str]:
    """The cells of a column, each text made once: thousands of records say the same."""
    kinds = set(map(type, values))
    if kinds <= {float, int, type(None)}:  # numbers as JSON writes them, which is quick
        return orjson.dumps(values).decode()[1:-1].replace("null", "").split(",")
    values = list(map(tuple, values)) if kinds == {list} else values
    if kinds in ({list}, {str}):
        cells = {value: _cell(value) for value in set(values)}
        return map(cells.__getitem__, values)
    return map(_cell, values)


def _cell(value: Any) -> str:
    """Text as a cell, in quotes where a sign in it would end the cell."""
    if isinstance(value, dict):
        value = " ".join(f"{key}:{seed}" for key, seeds in value.items() for seed in seeds)
    elif isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    elif value is None:
        return ""
    elif not isinstance(value, str):
        return str(value)
    text = f"'{value}" if value.startswith(_FORMULA) else value
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in _QUOTED) else text
