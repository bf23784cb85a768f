"""The record as a Markdown page, a pure function of it."""

from collections.abc import Iterable, Sequence
from typing import Any

from pmexp.bench.gpu.workload import BASELINE

_GIB = 2**30
_CASE = ("model", "attention", "precision", "variant")
_STEPS = (
    *_CASE,
    *("batch", "rounds", "ms a step", "samples/s", "times as fast [95 %]", "peak GiB", "saved"),
    *("kept for backward GiB", "mask bytes an element"),
)
_LARGEST = (*_CASE, "largest batch", "too large", "times the baseline's")
_HOW = """\
Forward, loss, backward, clipping and AdamW on random tokens, timed on CUDA between two events. The variants
take turns over one set of weights, in an order that is reversed at every round, after warm-up. *times as
fast* is the median over the rounds of the baseline's time over the variant's. *saved* is of the peak, against
the baseline's."""


def page(record: dict[str, Any]) -> str:
    """What was measured, on what, and what was left out."""
    environment = record["environment"]
    parts = [
        f"# BERT as a masked language model on {environment['device']}",
        f"    {record['command']}",
        f"{record['date']}; " + ", ".join(f"{name} {value}" for name, value in environment.items()) + ".",
        "## Checked before",
        _listed(record["checks"]),
        "## Steps",
        f"{_HOW} The peak is {record['peak']}.",
        _table(_STEPS, _step_rows(record["steps"])),
        "## Largest batch",
        "By doubling and bisection to 1/32; an empty *too large* says that time ran out before it was found.",
        _table(_LARGEST, _largest_rows(record["largest"])),
        "## Left out, and what had no room",
        _listed([*record["left_out"], *record["notes"]]),
    ]
    return "\n\n".join(parts) + "\n"


def _step_rows(rows: Sequence[dict[str, Any]]) -> Iterable[list[str]]:
    for row in rows:
        before = _baseline(rows, row)["peak_bytes"]
        elements = row["mask_elements"]
        yield [
            *_case(row),
            row["variant"],
            str(row["batch"]),
            str(len(row["seconds"])),
            f"{row['ms']:.1f}",
            f"{row['samples_per_s']:.1f}",
            f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['peak_bytes'] / _GIB:.2f}",
            f"{1 - row['peak_bytes'] / before:.1%}",
            f"{row['saved_bytes'] / _GIB:.2f}",
            f"{row['mask_bytes'] / elements:.3f}" if elements else "none",
        ]


def _largest_rows(rows: Sequence[dict[str, Any]]) -> Iterable[list[str]]:
    for row in rows:
        before = _baseline(rows, row)["batch"]
        yield [
            *_case(row),
            row["variant"],
            str(row["batch"]),
            str(row["too_large"] or ""),
            f"{row['batch'] / before:.2f}" if before and row["too_large"] else "",
        ]


def _case(row: dict[str, Any]) -> list[str]:
    return [str(row[key]) for key in _CASE if key != "variant"]


def _baseline(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """The row of the baseline in the same case."""
    return next(other for other in rows if other["variant"] == BASELINE and _case(other) == _case(row))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(cells) for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "Nothing."
