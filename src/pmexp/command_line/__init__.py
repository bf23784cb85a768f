"""Defines the dialect of all commands: key=value or --key value, --help, errors of one line, exit codes.

Imports no torch.
"""

from pmexp.command_line.command import (
    Command,
    Given,
    Key,
    Others,
    asks_help,
    called,
    given_twice,
    switch,
    typed_as,
)
from pmexp.command_line.ending import MACHINE_FAILED, end, end_at_once, exit_code, importing
from pmexp.command_line.suggest import allowed_values, meant, nearest, one_of, whole

__all__ = [
    "MACHINE_FAILED",
    "Command",
    "Given",
    "Key",
    "Others",
    "allowed_values",
    "asks_help",
    "called",
    "end",
    "end_at_once",
    "exit_code",
    "given_twice",
    "importing",
    "meant",
    "nearest",
    "one_of",
    "switch",
    "typed_as",
    "whole",
]
