"""Reads the rows of csv and tsv files: every cell is text, and every row as long as the header."""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path

from pmexp.datasets.text_lines import Unreadable, text_lines
from pmexp.errors import UserError
from pmexp.shown import counted

DELIMITERS = {"csv": ",", "tsv": "\t"}


def cells(file: Path, quotes_mark: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows of separated values. A line without any character is no row."""
    reader = csv.reader(
        text_lines(file, newline=""),
        delimiter=DELIMITERS[file.suffix[1:]],
        quoting=csv.QUOTE_MINIMAL if quotes_mark else csv.QUOTE_NONE,
        strict=True,
    )
    before = csv.field_size_limit(sys.maxsize)
    try:
        header = next(filter(None, reader), None)
        if header is None:
            raise Unreadable("it is empty")
        rows = []
        for row in filter(None, reader):
            if len(row) != len(header):
                raise Unreadable(
                    f"line {reader.line_num} ends a row of {counted(len(row), 'cell')}, the header has "
                    f"{len(header)}"
                )
            if row == header and len(row) > 1:
                raise Unreadable(f"line {reader.line_num} repeats the header; leave it out")
            rows.append(row)
    except csv.Error as error:
        raise Unreadable(f"line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)
    return header, rows


def quotes_are_marks(files: Iterable[Path]) -> bool:
    """Whether quotes around a cell of tab-separated files mark where it begins and ends, as in csv.

    Where a file has other rows by the rules of csv, or breaks them, quotes are characters like others: GLUE's
    files know no quoting, and are full of lone quotes. Raises UserError where another file has cells with
    tabs, line ends or quotes that csv's rules have written.
    """
    by_rule = {_quotes_of(file): file for file in files}
    if True in by_rule and False in by_rule:
        raise UserError(
            f"dataset.path: {by_rule[True]} has quotes around cells as csv has them, and {by_rule[False]} "
            "has lone quotes; write both by the rules of csv"
        )
    return False not in by_rule


def _quotes_of(file: Path) -> bool | None:
    """Whether quotes around cells of a tsv file are marks; None where both hold, or it is no tsv."""
    marked, plain = (_rows(file, quotes_mark) for quotes_mark in (True, False))
    if marked is None:
        return None if plain is None else False
    if plain is None:  # a cell holds a tab or a line end
        return True
    if len(plain) != len(marked):
        return False
    rows = zip(marked, plain, strict=True)
    written = any('"' in cell != raw for row, raws in rows for cell, raw in zip(row, raws, strict=True))
    return True if written else None


def _rows(file: Path, quotes_mark: bool) -> list[list[str]] | None:
    try:
        return cells(file, quotes_mark)[1]
    except (Unreadable, OSError):
        return None
