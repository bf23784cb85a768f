"""Reads the flags of `pmexp train`, those of Hydra, and the overrides. Imports no torch."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import pmexp
from pmexp.command.compose import check
from pmexp.command.composition import Source, introduce
from pmexp.command.help_text import help_text
from pmexp.command.overrides import own_folder
from pmexp.command.schema import CONFIG_DIR, conf_folder, key_of_flag, keys, options
from pmexp.command_line import Command, Others, switch
from pmexp.errors import UserError, first_line

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SWITCHES = {  # flags of Hydra without a value, and their short forms
    "--help": "-h", "--hydra-help": "", "--version": "", "--multirun": "-m", "--run": "-r", "--resolve": "",
}  # fmt: skip
VALUED = {  # those with a value, their short forms, and what is allowed where not any text is
    "--cfg": ("-c", ("job", "hydra", "all")),
    "--info": ("-i", _INFO),
    "--package": ("-p", ()),
    "--config-dir": ("-cd", ()),
    "--config-name": ("-cn", ()),
}
COMMAND = Command(
    "pmexp.train",
    "runs one configuration, with -m a sweep of them",
    (switch("smoke", "true, with experiment=NAME: every arm for a few steps, at small sizes"), CONFIG_DIR),
    others=Others(
        "what Hydra takes",
        lambda _: True,
        lambda: (*keys(), *(flag[2:] for flag in (*SWITCHES, *VALUED))),
        key_of_flag,
    ),
)


@dataclass(frozen=True)
class CommandLine:
    """Holds what was typed, in parts."""

    overrides: list[str]
    source: Source
    sweeps: bool
    shows: list[str]  # flags of Hydra, where something is to be shown and nothing to be run


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise UserError(f"{message}; --help lists what there is")


def read(arguments: Sequence[str]) -> CommandLine:
    """The command line; flags may stand anywhere in it, and --key value is key=value. Raises UserError."""
    given, unknown = _parser().parse_known_intermixed_args(in_small(arguments))
    for argument in unknown:
        raise COMMAND.unknown(argument, argument.partition("=")[0].lstrip("-"))
    if given.config_path or given.experimental_rerun:
        raise UserError(
            "--config-path and --experimental-rerun: have no meaning here; add options of your own by "
            "--config-dir, and repeat a run by its command or pmexp runs retry"
        )
    shows = [flag for flag in ("help", "hydra-help", "version") if _of(given, flag)]
    values = [flag for flag in ("cfg", "info") if _of(given, flag)]
    asked = [*shows, *values, *(flag for flag in ("run", "multirun") if _of(given, flag))]
    if len(asked) > 1 and asked[0] not in ("help", "hydra-help", "version"):
        raise UserError(f"{' '.join(f'--{flag}' for flag in asked)}: exclude each other; give one of them")
    if (given.package and not given.cfg) or (given.resolve and not (given.cfg or given.help)):
        raise UserError("--package and --resolve: say how --cfg shows a configuration; add --cfg job")
    folder = own_folder(Path(os.path.expanduser(given.config_dir))) if given.config_dir else None
    return CommandLine(
        overrides=given.overrides,
        source=Source(given.config_name, folder),
        sweeps=given.multirun,
        shows=[
            *(f"--{flag}" for flag in shows[:1]),
            *(f"--{flag}={_of(given, flag)}" for flag in values[: not shows]),
            *(["--resolve"] if given.resolve else []),
            *([f"--package={given.package}"] if given.package else []),
        ],
    )


def show(line: CommandLine) -> None:
    """Prints the help, or has Hydra show what is asked for. Raises UserError where it cannot."""
    if line.shows[0] == "--help":
        print(help_text(line.overrides, line.source, "--resolve" in line.shows), end="")
        return
    if line.shows[0] == "--version":
        print(f"pmexp {pmexp.__version__}")
        return
    introduce()
    overrides = line.overrides
    if line.shows[0].startswith(("--cfg", "--info")):
        overrides = check(overrides, line.source)
    source = [f"--config-name={line.source.name}"]
    source += [f"--config-dir={line.source.folder}"] if line.source.folder else []
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its exceptions to us
    before, sys.argv = sys.argv, [sys.argv[0], *line.shows, *source, *overrides]
    shown, errors = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(shown), redirect_stderr(errors):
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
                lambda _: None
            )()
    except SystemExit as end:
        if end.code:
            raise UserError(" ".join(errors.getvalue().split())) from None
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        raise UserError(f"{' '.join(line.shows)}: {first_line(error)}") from error
    finally:
        sys.argv = before
        print(shown.getvalue(), end="")


def in_small(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with ``experiment=X smoke=true`` as ``experiment=smoke/X``: every arm of the
    experiment for a few steps, at sizes and on data that any machine has.

    Raises UserError for an experiment that has no such form, and for smoke= without an experiment.
    """
    given = COMMAND.read(arguments)
    others = [*given.others, *(f"--config-dir={folder}" for folder in [given["config_dir"]] if folder)]
    if not given.is_on("smoke"):
        return others
    allowed = options("experiment/smoke", *filter(None, [given.path("config_dir")]))
    names = [argument.partition("=")[2] for argument in others if argument.startswith("experiment=")]
    if len(names) != 1 or names[0] not in allowed:
        raise UserError(
            f"smoke=true: needs one experiment; write it with experiment= one of {', '.join(allowed)}"
        )
    return [f"experiment=smoke/{names[0]}" if a.startswith("experiment=") else a for a in others]


def _parser() -> _Parser:
    """Returns a parser of Hydra's flags."""
    parser = _Parser(add_help=False, usage=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    for flag, short in SWITCHES.items():
        parser.add_argument(*filter(None, (short, flag)), action="store_true")
    optional: dict[str, dict[str, Any]] = {
        "--info": {"nargs": "?", "const": "all"},
        "--config-name": {"default": "config"},
    }
    for flag, (short, allowed) in VALUED.items():
        parser.add_argument(short, flag, choices=allowed or None, **optional.get(flag, {}))
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("--experimental-rerun")
    return parser


def _of(given: argparse.Namespace, flag: str) -> str:
    return getattr(given, flag.replace("-", "_")) or ""
