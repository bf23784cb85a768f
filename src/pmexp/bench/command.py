"""Reads the keys, runs a level, and returns an exit code."""

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pmexp.bench.options import (
    COMMANDS,
    level,
    loader_options,
    memory_options,
    micro_options,
    records_options,
    start_options,
    step_options,
    tempo_options,
)
from pmexp.command.explain import explained
from pmexp.command_line import asks_help, exit_code

if TYPE_CHECKING:
    from pmexp.bench.contenders import Contender


def main(arguments: Sequence[str] | None = None, field: "Sequence[Contender] | None" = None) -> int:
    """Returns the exit code: 0 done, 1 a contender is wrong, 2 bad input, 130 interrupted.

    `field`: contenders of level=micro in place of those known; the baseline has to be among them.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if asks_help(typed):
        *levels, last = COMMANDS.values()
        text = "\n".join([*(one.help(how_typed=False) for one in levels), last.help()])
        return exit_code(lambda: print(text, end=""))
    return exit_code(lambda: _run(typed, field))


@explained()
def _run(arguments: list[str], field: "Sequence[Contender] | None") -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    chosen = level(arguments)
    given = COMMANDS[chosen].read(arguments)
    command = given.again()
    match chosen:  # each imports torch, for which a wrong key need not wait
        case "micro":
            micro = micro_options(given)
            from pmexp.bench.micro import run as run_micro

            run_micro(micro, command, field)
        case "step":
            step = step_options(given)
            from pmexp.bench.step import run as run_step

            run_step(step, command)
        case "memory":
            memory = memory_options(given)
            from pmexp.bench.memory import run as run_memory

            run_memory(memory, command)
        case "loader":
            loader = loader_options(given)
            from pmexp.bench.loader import run as run_loader

            run_loader(loader, command)
        case "start":
            start = start_options(given)
            from pmexp.bench.start import run as run_start

            run_start(start, command)
        case "tempo":
            tempo = tempo_options(given)
            from pmexp.bench.tempo import run as run_tempo

            run_tempo(tempo, command)
        case "report":
            from pmexp_analysis.benchmark import measure

            measure(given)
        case _:
            records = records_options(given)
            from pmexp.bench.records import run as run_records

            run_records(records, command)
