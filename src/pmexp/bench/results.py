"""Prints what level=micro measured, and writes what a level measured."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pmexp.bench.contenders import BASELINE, PHASES
from pmexp.bench.figure import figure
from pmexp.bench.timing import Timing
from pmexp.command_line import output

_CELL = 31  # characters of a column of the table


def table(rows: Sequence[Timing]) -> str:
    """Returns a table of the rows of one shape and dtype, a line a contender."""
    first, width = rows[0], max(len(row.contender) for row in rows)
    cells = {(row.contender, row.phase): _cell(row) for row in rows}
    lines = [
        f"{first.shape} {first.dtype} on {first.device}: ms of a call, times as fast as {BASELINE} [95 %]",
        "".join([" " * width, *(f"{phase:>{_CELL}}" for phase in PHASES)]),
    ]
    for name in dict.fromkeys(row.contender for row in rows):
        row = (cells.get((name, phase), "") for phase in PHASES)
        lines.append("".join([f"{name:<{width}}", *(f"{cell:>{_CELL}}" for cell in row)]))
    return "\n".join(lines)


def _cell(row: Timing) -> str:
    return f"{row.ms:.4g} {row.ratio:6.2f} [{row.low:.2f}, {row.high:.2f}]"


def write(out: Path, rows: Sequence[Timing], shares: Sequence[Any], record: Mapping[str, Any]) -> list[Path]:
    """Writes micro.csv, the figure, environment.json, and bandwidth.csv where there are `shares`; returns the
    paths."""
    table_path, record_path = write_record(out, "micro.csv", rows, record)
    paths = [table_path, out / "micro.png", out / "micro.pdf", record_path]
    drawn = figure(rows)
    for path in paths[1:3]:
        content = io.BytesIO()
        drawn.savefig(content, format=path.suffix[1:], dpi=150)
        output.write(path, content.getvalue())
    if shares:
        paths.append(out / "bandwidth.csv")
        write_csv(paths[-1], shares)
    return paths


def write_record(out: Path, name: str, rows: Sequence[Any], record: Mapping[str, Any]) -> tuple[Path, Path]:
    """Writes `rows`, dataclasses of one class, to the file `name`, and environment.json; returns both."""
    table_path, record_path = out / name, out / "environment.json"
    write_csv(table_path, rows)
    output.write(record_path, json.dumps(record, indent=2) + "\n")
    return table_path, record_path


def write_csv(path: Path, rows: Sequence[Any]) -> None:
    """Writes dataclasses of one class, a line each under the names of their fields."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(asdict(rows[0])))
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    output.write(path, text.getvalue())
