"""Reads the keys, examines the models, writes the page, and returns an exit code."""

import sys
from collections.abc import Sequence
from itertools import chain

from pmexp.command.explain import explained
from pmexp.command_line import Command, Given, Key
from pmexp.errors import ContenderFailed, UserError
from pmexp.shown import counted

COMMAND = Command(
    "pmexp.zoo",
    "packed dropout in tiny models of every class at hand, compared with torch's bit for bit",
    (
        Key("only", "the classes to examine, separated by commas; without it all of them, in minutes"),
        Key("out", "the file that the page is written to; without it the page is printed"),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a model is at fault, 2 bad input, 130 interrupted."""
    return COMMAND.run(arguments, _write)


@explained()
def _write(given: Given) -> None:
    given.new_file("out", ".md")  # refused before the classes are listed, which takes seconds
    from pmexp.zoo.page import page  # imports torch, for which a wrong key need not wait
    from pmexp.zoo.sweep import FAMILIES, swept

    wanted = given["only"].split(",") if given["only"] else []
    specimens = [
        each
        for each in chain.from_iterable(family() for family in FAMILIES)
        if not wanted or each.name in wanted
    ]
    if unknown := set(wanted) - {each.name for each in specimens}:
        raise UserError(
            f"only={','.join(sorted(unknown))}: no such class here; docs/results/zoo.md lists them"
        )
    print(f"examining {counted(len(specimens), 'model')} ...", file=sys.stderr, flush=True)
    rows = []

    def text() -> str:
        rows.extend(swept(specimens))
        return page(given.again(), rows)

    given.write_page("out", text)
    if faults := [f"{row.name} ({row.attention})" for row in rows if row.faults]:
        raise ContenderFailed(f"not as torch's dropout, or not in the report: {', '.join(faults)}")
