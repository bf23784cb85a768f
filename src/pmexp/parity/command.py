"""Reads the keys, compares, and returns an exit code."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from pmexp.command.explain import explained
from pmexp.command_line import Given
from pmexp.command_line.output import write
from pmexp.errors import MachineError, error_line
from pmexp.parity.options import COMMAND, ParityOptions, parity_options

EQUAL, DIFFERENT = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 equal, 1 different, 2 bad input or a dead training, 3 the machine failed,
    130 interrupted."""
    return COMMAND.run(arguments, _certify)


@explained()
def _certify(given: Given) -> int:
    """Prints the verdict, writes it where `out` says, and returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = parity_options(given)
    record = certified(options, given.again())
    sentence = record["sentence"].replace("; ", "\n  ")
    print(f"{record['a']['label']} and {record['b']['label']}: {sentence}")
    if options.out:
        from pmexp.parity.page import page

        files = {"certificate.json": json.dumps(record, indent=2) + "\n", "certificate.md": page(record)}
        for name, content in files.items():
            write(options.out / name, content)
            print(options.out / name)
    return EQUAL if record["verdict"] == "equal" else DIFFERENT


def certified(options: ParityOptions, command: str = "") -> dict[str, Any]:
    """Compares both sides and returns the certificate. Raises MachineError where memory does not suffice."""
    from pmexp.measure.out_of_memory import is_out_of_memory  # imports torch, as do the others

    try:
        return _in_lockstep(options, command)
    except Exception as error:
        if is_out_of_memory(error):
            raise MachineError(
                f"memory did not suffice for both trainings side by side ({error_line(error)}); make both "
                "smaller, as by train.batch_size or model, or run the same again where more is free"
            ) from error
        raise


def _in_lockstep(options: ParityOptions, command: str) -> dict[str, Any]:
    from pmexp.parity.certificate import certificate
    from pmexp.parity.lockstep import compare
    from pmexp.parity.rounding import explain
    from pmexp.parity.side import Side

    a, b = Side("a", options.a), Side("b", options.b)
    compared = compare(a, b, options.steps)
    for side in (a, b):
        side.refuse_changes()  # what its steps have changed
    explain(a, compared)
    return certificate(a, b, compared, command)
