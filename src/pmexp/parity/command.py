"""The command: keys in, exit code out."""

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pmexp.command.exit_code import exit_code
from pmexp.errors import UserError
from pmexp.masking import masked_arguments
from pmexp.parity.options import ParityOptions, parity_options
from pmexp.run_folder.files import write_atomically

EQUAL, DIFFERENT = 0, 1

_USAGE = """\
python -m pmexp.parity [key=value ...]   whether two dropouts, or two system stacks, train bit for bit alike
  a=baseline b=pm-drop-same-masks   variants, or nn.Dropout subclasses by import path: b=mypackage.MyDropout
  a.KEY=VALUE b.KEY=VALUE           a key of one side: b.system=tempo, b.system.parts=[bf16], b.variant.bits=2
  steps=20                          steps taken in lock-step, until one differs
  out=DIR                           writes certificate.json and certificate.md there
  every key of pmexp.train, for both sides, such as model=tinybert model.pretrained=false dataset=reuters-r8

exit code: 0 equal, 1 different, 2 bad input or a training that proves nothing, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 equal, 1 different, 2 bad input or a dead training, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE, end="")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    found = []
    failed = exit_code(lambda: found.append(_certify(given)))
    return failed or (EQUAL if found[0] else DIFFERENT)


def _certify(arguments: list[str]) -> bool:
    """Whether the sides are equal. Prints the verdict and writes it where `out` says."""
    command = shlex.join(["python", "-m", "pmexp.parity", *masked_arguments(arguments)])
    options = parity_options(arguments)
    if options.out:
        _make(options.out)
    equal, told, text = _compared(options, command)
    print(told)
    if options.out:
        for name, content in text.items():
            write_atomically(options.out / name, content)
            print(options.out / name)
    return equal


def _compared(options: ParityOptions, command: str) -> tuple[bool, str, dict[str, str]]:
    """Whether they are equal, the verdict in words, and the files by their names."""
    from pmexp.parity.certificate import certificate  # imports torch, as do the others
    from pmexp.parity.lockstep import compare
    from pmexp.parity.page import page
    from pmexp.parity.rounding import explain
    from pmexp.parity.side import Side

    a, b = Side("a", options.a), Side("b", options.b)
    found = compare(a, b, options.steps)
    explain(a, found)
    told = certificate(a, b, found, command)
    files = {"certificate.json": json.dumps(told, indent=2) + "\n", "certificate.md": page(told)}
    return found.equal, f"{a.label} and {b.label}: {told['sentence']}", files


def _make(out: Path) -> None:
    """Before minutes of work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: {out} cannot be made: {error.strerror}; name another folder") from None
