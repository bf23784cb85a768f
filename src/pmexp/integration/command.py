"""The command: keys in, exit code out."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pmexp.command.exit_code import exit_code
from pmexp.command.keys import own_keys, path_of
from pmexp.errors import UserError
from pmexp.masking import masked_arguments

_USAGE = """\
python -m pmexp.integration [out=FILE]   what PM-Drop needs of each supported model, and what it reaches there
  out=docs/integration.md   writes the page there; without it the page is printed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE, end="")
        return 0
    return exit_code(lambda: _write(given))


def _write(arguments: list[str]) -> None:
    keys, others = own_keys(arguments, ("out",))
    if others:
        raise UserError(f"{others[0]}: is not a key of this command; allowed is out=FILE")
    out = path_of(keys, "out")
    if out is not None:
        _check(out)
    from pmexp.integration.page import page  # imports torch, for which a wrong key need not wait

    text = page(shlex.join(["python", "-m", "pmexp.integration", *masked_arguments(arguments)]))
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
        print(out)


def _check(out: Path) -> None:
    """Before a minute of work."""
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"out: {out} cannot be written; name a file in a folder that is there")
