"""Reads the file of a split: the rows that a person sees in it, or one line that says why it cannot be read.

Text stays text: nothing in it is taken for missing, for a number or for a date. A path names one file,
whatever letters are in it, and nothing is cached.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pmexp.datasets.json_records import records
from pmexp.datasets.separated import DELIMITERS, cells
from pmexp.datasets.text_lines import text_lines
from pmexp.errors import UserError, why_unread

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")


@dataclass(frozen=True)
class Columns:
    """One split's columns by name. A cell is None where it is missing."""

    split: str
    column_names: list[str]
    _rows: int
    _column: Callable[[str], list[Any]]
    features: Mapping[str, Any] = field(default_factory=dict)  # by column, as the `datasets` library has them

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> list[Any]:
        return self._column(name)


def read(file: Path, split: str, quotes_mark: bool = True, empty_cell: str | None = None) -> Columns:
    """The table in `file`, whose name ends on one of FORMATS or `txt`. Raises UserError.

    quotes_mark: whether quotes around cells of a tsv file are marks, see `separated.quotes_are_marks`.
    empty_cell: what a cell of a csv or tsv file without any character is.
    """
    kind = file.suffix[1:]

    def guarded(read_part: Callable[[], Any]) -> Any:
        try:
            return read_part()
        except Exception as error:  # pyarrow raises any kind
            raise UserError(f"dataset.path: {file} cannot be read as {kind} ({why_unread(error)})") from None

    names, rows, column = guarded(lambda: _read(file, kind, quotes_mark, empty_cell))
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise UserError(f"dataset.path: {file} has two columns {twice[0]!r}; rename or remove one")
    features = guarded(lambda: _features(file)) if kind == "parquet" else {}
    return Columns(split, names, rows, lambda name: guarded(lambda: column(name)), features)


def _read(
    file: Path, kind: str, quotes_mark: bool, empty_cell: str | None
) -> tuple[list[str], int, Callable[[str], list[Any]]]:
    """Returns the names of the columns, the number of rows, and a function that reads a column."""
    if kind == "parquet":
        return _parquet(file)
    if kind == "txt":
        lines = [line.removesuffix("\n") for line in text_lines(file)]
        return ["text"], len(lines), lambda name: lines
    if kind in DELIMITERS:
        header, rows = cells(file, quotes_mark=quotes_mark or kind == "csv")
        place = {name: index for index, name in enumerate(header)}
        return header, len(rows), lambda name: [row[place[name]] or empty_cell for row in rows]
    objects = list(records(file))
    names = list(dict.fromkeys(name for record in objects for name in record))
    return names, len(objects), lambda name: [record.get(name) for record in objects]


def _parquet(file: Path) -> tuple[list[str], int, Callable[[str], list[Any]]]:
    from pyarrow.parquet import ParquetFile

    with file.open("rb") as stream, ParquetFile(stream) as parquet:
        names, rows = list(parquet.schema_arrow.names), parquet.metadata.num_rows

    def column(name: str) -> list[Any]:
        with file.open("rb") as stream, ParquetFile(stream) as parquet:
            values: list[Any] = parquet.read(columns=[name]).column(name).to_pylist()
            return values

    return names, rows, column


def _features(file: Path) -> Mapping[str, Any]:
    """What the `datasets` library has written of the columns, such as the names of classes; of none else."""
    from pyarrow.parquet import read_schema

    schema = read_schema(file)
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import Features

    features: Mapping[str, Any] = Features.from_arrow_schema(schema)
    return features
