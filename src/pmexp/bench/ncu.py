"""Reads the bytes of device memory that Nsight Compute counted, out of what `ncu --csv` prints.

ncu prints one of two tables: a line a metric (`Metric Name`, `Metric Unit`, `Metric Value`), or with
`--page raw` a line a launch, a column a metric, and the units in a line below the head. Before and between
them stand its own lines, which begin with `==`, and without `--log-file` also what the program printed.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pmexp.errors import UserError

READ, WRITTEN = METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
_LONG = ("Metric Name", "Metric Unit", "Metric Value")
_UNITS = {"byte": 1, "kbyte": 10**3, "mbyte": 10**6, "gbyte": 10**9, "tbyte": 10**12}
_NUMBER = re.compile(r"(\d+|\d{1,3}(,\d{3})+)(\.\d+)?")  # one that has its point and commas as in English
_PLAIN = "run ncu with LC_ALL=C and --print-units base"
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Traffic:
    """Counts what all launches of one kernel moved between device memory and the caches."""

    kernel: str  # as ncu prints it, with its types and parameters
    launches: int
    read: float  # bytes
    written: float  # bytes


class _Value(NamedTuple):
    """One metric of one launch, with its line in the file."""

    line: int
    launch: tuple[str, ...]
    kernel: str
    metric: str
    bytes: float


def traffic(file: Path) -> list[Traffic]:
    """Returns the kernels of ncu's table, the one that moved most first.

    Raises UserError, one line, where the file is no such table or lacks a number.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"csv: {file} cannot be read ({error.strerror}); name ncu's output") from None
    launches: dict[tuple[str, ...], dict[str, _Value]] = defaultdict(dict)
    for value in _values(file, text.splitlines()):
        if launches[value.launch].setdefault(value.metric, value) is not value:
            raise _wrong(
                file, value.line, f"{value.metric} of this launch stands there twice", "keep one table"
            )
    by_kernel: dict[str, list[dict[str, _Value]]] = defaultdict(list)
    for metrics in launches.values():
        some = next(iter(metrics.values()))
        for name in METRICS:
            if name not in metrics:
                raise _wrong(
                    file, some.line, f"this launch has no {name}", f"run ncu with {_asked()}, to its end"
                )
        by_kernel[some.kernel].append(metrics)
    if not by_kernel:
        raise UserError(f"csv: {file} has no launch with {READ}; run ncu with {_asked()} on kernels that run")
    sums = [
        Traffic(kernel, len(all_of_it), *(sum(one[name].bytes for one in all_of_it) for name in METRICS))
        for kernel, all_of_it in by_kernel.items()
    ]
    return sorted(sums, key=lambda one: (-(one.read + one.written), one.kernel))


def _values(file: Path, lines: list[str]) -> Iterator[_Value]:
    """Yields what the table says of METRICS, with the lines counted from 1."""
    rows = ((number, _cells(line)) for number, line in enumerate(lines, 1) if not line.startswith("=="))
    head = next((cells for _, cells in rows if "Kernel Name" in cells), None)
    if head is None:
        errors = [line for line in lines if line.startswith("==ERROR==")]
        said = f"ncu says {errors[0][:_LONGEST_REASON]!r}" if errors else f"run ncu with --csv {_asked()}"
        raise UserError(f"csv: {file} holds no table of ncu (a line with 'Kernel Name'); {said}")
    is_long = set(_LONG) <= set(head)
    if not is_long and not set(METRICS) <= set(head):
        raise UserError(f"csv: the table in {file} has no {' and '.join(METRICS)}; run ncu with {_asked()}")
    units: dict[str, str] = {}
    for number, cells in rows:
        if len(cells) != len(head):
            if lines[number - 1].startswith('"'):  # what the program printed does not begin so
                raise _wrong(
                    file, number, f"{len(cells)} cells under {len(head)} columns", "run ncu to its end"
                )
            continue
        row = dict(zip(head, cells, strict=True))
        if not (is_long or units):
            units = row
            continue
        metrics = {row["Metric Name"]: (row["Metric Value"], row["Metric Unit"])} if is_long else {
            name: (row[name], units[name]) for name in METRICS
        }  # fmt: skip
        launch = (row.get("Process ID", ""), row.get("ID", str(number)))
        for name in METRICS:
            if name in metrics:
                amount = _bytes(file, number, *metrics[name])
                yield _Value(number, launch, row["Kernel Name"], name, amount)


def _cells(line: str) -> list[str]:
    """Returns the cells of a line; none where it is cut off in the middle of one."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []


def _bytes(file: Path, line: int, value: str, unit: str) -> float:
    if unit.lower() not in _UNITS:
        raise _wrong(file, line, f"the unit {unit!r} is none of bytes", _PLAIN)
    scale = _UNITS[unit.lower()]
    if not _NUMBER.fullmatch(value) or ("." in value and scale == 1):
        raise _wrong(file, line, f"{value!r} {unit} is no number of bytes", _PLAIN)
    return float(value.replace(",", "")) * scale


def _asked() -> str:
    return f"--metrics {','.join(METRICS)}"


def _wrong(file: Path, line: int, what: str, remedy: str) -> UserError:
    return UserError(f"csv: {file}, line {line}: {what}; {remedy}")
