"""Writes docs/results/zoo.md: what was reached in each class of models, and what was left and why."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec

import torch

from pmexp.shown import markdown_table
from pmexp.zoo.sweep import ZooRow
from pmexp.zoo.tiny import RATE

_HEAD = """\
# Packed dropout in every class of models at hand

    {command}

made this page on the CPU, with torch {torch}{libraries}. Each class is made tiny, with random weights
and every rate of dropout that its configuration has at {rate}, and takes three steps by the same masks: with
torch's dropout, with `replace_dropout(model, PackedDropout, rng="torch")`, and with `recompute=True` besides.
*exact* says that the loss and the gradient of every parameter are equal bit for bit in all three; that no
mask was saved unpacked (told by its values) and no random numbers were drawn (told by torch's operators) in a
module that the report does not name; and that packed masks took no more bytes than torch's, nor rebuilt
operands more than those and the bits of dropped inputs without a gradient.

*modules* are exchanged, *functions* are modules whose call of functional dropout or of
`F.scaled_dot_product_attention` is routed, *left* is how many places the report names, with the number of the
reason below. *packed* and *rebuilt* are the bytes saved for backward over those with torch's dropout, which
keeps 4 bytes an element on the CPU; tiny models keep little beside masks, so these are no forecast."""

_COLUMNS = ("class", "of", "attention", "modules", "functions", "left", "packed", "rebuilt", "exact")
_FAMILIES = ("of", "classes", "with dropout, exact", "at fault", "without dropout", "not examined")


def page(command: str, rows: Sequence[ZooRow]) -> str:
    """Returns the whole document in Markdown; `command` made it."""
    examined = [row for row in rows if row.missing is None]
    dropping = [row for row in examined if row.drops]
    reasons = {reason: str(place) for place, reason in enumerate(_in_order(dropping), 1)}
    libraries = [name for name in ("transformers", "peft", "timm", "diffusers") if find_spec(name)]
    head = _HEAD.format(
        command=command,
        torch=torch.__version__.partition("+")[0],
        libraries="".join(f", {name} {version(name)}" for name in libraries),
        rate=RATE,
    )
    parts = [head, _families(rows), "## With dropout", _table(dropping, reasons)]
    parts += ["Left, with its reason:", "\n".join(f"{place}. {reason}" for reason, place in reasons.items())]
    if faults := [f"- {row.name}, {row.attention}: {fault}" for row in rows for fault in row.faults]:
        parts += ["## Faults", "\n".join(faults)]
    silent = sorted({row.name for row in examined} - {row.name for row in dropping})
    parts += [
        "## Without dropout",
        "No rate in the configuration, or no code that reads it. Steps are equal all the same.",
        f"{', '.join(silent)}.",
    ]
    parts += [
        "## Not examined",
        "No tiny configuration or no inputs were found by names alone, and this is what was met:",
    ]
    parts.append("\n".join(f"- {names}: {reason}" for names, reason in _missing(rows).items()))
    return "\n\n".join(parts) + "\n"


def _families(rows: Sequence[ZooRow]) -> str:
    lines = []
    for family in dict.fromkeys(row.family for row in rows):
        ours = [row for row in rows if row.family == family]
        seen = {row.name for row in ours if row.missing is None}
        dropping = {row.name for row in ours if row.drops}
        faulty = {row.name for row in ours if row.faults}
        names = {row.name for row in ours}
        counts = (names, dropping - faulty, faulty, seen - dropping, names - seen)
        lines.append((family, *map(len, counts)))
    return markdown_table(_FAMILIES, lines)


def _table(rows: Iterable[ZooRow], reasons: dict[str, str]) -> str:
    """Returns a line a class, and one more where another attention makes a difference."""
    attentions: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for row in rows:
        left = ", ".join(f"{count} ({reasons[reason]})" for reason, count in row.left.items()) or "0"
        saved, exact = (f"{row.packed:.2f}", f"{row.rebuilt:.2f}"), "no" if row.faults else "yes"
        cells = (str(row.modules), str(row.functions), left, *saved, exact)
        attentions.setdefault(((row.name, row.family), cells), []).append(row.attention)
    lines = [(*names, ", ".join(met), *cells) for (names, cells), met in attentions.items()]
    return markdown_table(_COLUMNS, lines)


def _in_order(rows: Iterable[ZooRow]) -> list[str]:
    return list(dict.fromkeys(reason for row in rows for reason in row.left))


def _missing(rows: Iterable[ZooRow]) -> dict[str, str]:
    """Returns what was met, by the names of the classes that met it under whichever attention."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.missing is not None and row.name not in names.get(row.missing, []):
            names.setdefault(row.missing, []).append(row.name)
    return {", ".join(met): reason for reason, met in names.items()}
