"""Writes the record as a Markdown page, a pure function of it."""

from collections.abc import Iterable, Sequence
from typing import Any

from pmexp.shown import markdown_table

_INTRODUCTION = """\
Times are of the device, between two events, unless a column says host or wall; contenders take turns, in an
order that is reversed at every round, after warm-up. An interval is of 95 %, of the rounds' median ratio;
fewer than 6 rounds have none."""


def page(record: dict[str, Any]) -> str:
    """Returns the page: what was measured, on what, what it says of each claim, and what was left out."""
    environment = record.get("environment", {"device": "an unknown device"})
    parts = [
        f"# Measured on {environment['device']}",
        f"    {record['command']}",
        f"{record['date']}; " + ", ".join(f"{name} {value}" for name, value in environment.items()) + ".",
        "## Claims",
        _table(record["claims"]) or "None: sizes that try the code settle nothing.",
        _INTRODUCTION,
    ]
    for stage in record["stages"]:
        parts += _stage(stage)
    return "\n\n".join(parts) + "\n"


def _stage(stage: dict[str, Any]) -> Iterable[str]:
    yield f"## {stage['title']}"
    took = f" after {stage['took_seconds']:g} s" if "took_seconds" in stage else ""
    yield f"Ended: {stage['ended']}{took}."
    failed = [check for check in stage["checks"] if not check["held"]]
    if held := [check["what"] for check in stage["checks"] if check["held"]]:
        yield "Holds:\n\n" + _listed(held)
    if failed:
        yield "**Does not hold:**\n\n" + _listed(f"{check['what']}: {check['detail']}" for check in failed)
    for name, rows in stage["tables"].items():
        if rows:
            yield f"### {name.replace('_', ' ').capitalize()}\n\n{_table(rows)}"
    for head, kind in (("Notes:", "notes"), ("**Failed:**", "failed"), ("Left out:", "left_out")):
        if stage[kind]:
            yield f"{head}\n\n{_listed(stage[kind])}"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a table with a column for each key that any row has, in the order of their first appearance; ""
    without rows."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = [column.replace("_", " ") for column in columns]
    return markdown_table(head, ([_text(row.get(column)) for column in columns] for row in rows))


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
