"""Entry point of `pmexp`: runs a subcommand as `python -m` would, and imports nothing but that one."""

import runpy
import sys
from collections.abc import Sequence

from pmexp.cli.subcommands import FLAGS, SUBCOMMANDS
from pmexp.command_line import allowed_values, asks_help, exit_code, importing, typed_as
from pmexp.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code, unless the subcommand ends the process with its own: 0 done, 2 bad input."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if typed and typed[0] in SUBCOMMANDS:
        return exit_code(lambda: _start(*typed))  # which names the extra where an import fails
    return exit_code(lambda: print(_answer(typed), end=""))


def _start(name: str, *typed: str) -> None:
    chosen = SUBCOMMANDS[name]
    sys.argv = [name, *chosen.first, *typed]
    with typed_as("pmexp", name), importing():
        runpy.run_module(chosen.module, run_name="__main__", alter_sys=True)


def _answer(typed: Sequence[str]) -> str:
    """The help or the version. Raises UserError for anything else."""
    if not typed or asks_help(typed[:1]):
        return _help()
    if typed[0] == "--version":
        from pmexp import __version__  # reads the installed package's metadata

        return f"pmexp {__version__}\n"
    raise UserError(f"{typed[0]}: is not a command; {allowed_values(typed[0], (*SUBCOMMANDS, *FLAGS))}")


def _help() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = ["pmexp COMMAND [key=value ...]   does a memory-saving training method leave training as it was?"]
    lines += [f"  {name:<{width}}  {one.purpose}" for name, one in SUBCOMMANDS.items()]
    lines.append("pmexp COMMAND --help lists the keys of a command, pmexp --version says the version")
    return "\n".join(lines) + "\n"
