"""A table of text as Markdown, LaTeX and CSV, and lists of records as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pmexp_analysis.tables import Table

_LATEX = {
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "<": "$<$",
    ">": "$>$",
}  # "<" is another letter in LaTeX's old fonts


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown, the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(table.headings) - 1)]
    lines = [table.headings, rule, *table.cells]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def latex(table: Table, caption: str, label: str) -> str:
    """A `table` environment with booktabs' rules (needs \\usepackage{booktabs})."""
    frame = pd.DataFrame(table.cells, columns=table.headings)
    columns = "l" + "r" * (len(table.headings) - 1)
    text: str = frame.to_latex(
        index=False, escape=True, caption=_plain(caption), label=label, column_format=columns, position="t"
    )
    for letter, command in _LATEX.items():
        text = text.replace(letter, command)
    return text


def records_csv(records: Sequence[Any]) -> str:
    """Dataclasses of one type as CSV, a column a field; nothing for None, lists joined by blanks."""
    if not records:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(vars(records[0])), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _joined(value) for key, value in vars(record).items()})
    return buffer.getvalue()


def _joined(value: Any) -> Any:
    if isinstance(value, dict):
        return " ".join(f"{key}:{seed}" for key, seeds in value.items() for seed in seeds)
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|").replace("\n", " ")


def _plain(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)
