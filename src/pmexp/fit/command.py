"""Reads the keys, answers, and returns an exit code."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmexp.command.compose import compose
from pmexp.command.explain import explained
from pmexp.command_line import Given
from pmexp.command_line.output import check_file, write
from pmexp.fit.budget import in_gib, in_unit
from pmexp.fit.options import COMMAND, FitOptions, fit_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 answered, 2 bad input, 130 interrupted."""
    return COMMAND.run(arguments, _answer)


@explained()
def _answer(given: Given) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = fit_options(given)
    out = options.out or _in_runs(options)
    text = _run(options, given.again())
    if out is not None:
        write(out, text)
        print(out)


def _in_runs(options: FitOptions) -> Path | None:
    """Where the report of a run's name reads what was measured; None for what is simulated."""
    if options.method != "measure" or options.cost:
        return None
    config = compose(options.overrides)
    file = config.folder.parent / "fit" / f"{options.what}-{config.run_id}.json"
    check_file(file, "runs_dir", ".json")
    return file


def _run(options: FitOptions, command: str) -> str:
    """Prints the answer and returns what is written of it."""
    if not options.cost and options.table is None:
        compose(options.overrides)  # refuses a wrong key, for which nobody waits until torch is there
    import torch

    from pmexp.fit.answer import answer
    from pmexp.fit.cost import cost
    from pmexp.fit.table import table
    from pmexp.measure.environment import environment
    from pmexp.simulation import NOT_MODELLED

    if options.cost or options.table is not None:
        markdown = cost(options) + f"`{command}`\n" if options.cost else table(options, command)
        print(markdown, end="")
        return markdown
    answered = answer(options)
    record = answered.record(options)
    if options.method == "simulate":
        record["not_modelled"] = list(NOT_MODELLED)
    cuda = options.method == "measure" and torch.cuda.is_available()
    record |= {"command": command, "environment": environment(torch.device("cuda" if cuda else "cpu"))}
    print(_summary(record))
    return json.dumps(record, indent=2) + "\n"


def _summary(record: dict[str, Any]) -> str:
    budget, peak = record["budget_bytes"], record["peak_bytes"]
    fits = "fits" if record["fits"] else "does not fit"
    lines = [f"{record['what']} {record['asked']} {fits} into {in_gib(budget)} ({record['method']}d)"]
    if peak is not None:
        lines.append(f"peak {in_unit(peak, peak)}" + f" ({record['note']})" * bool(record["note"]))
        lines += [f"  {name:<12}{in_unit(size, peak):>13}" for name, size in record["by_category"].items()]
    else:
        lines.append(record["note"])
    lines.append(f"largest {record['what']} that fits: {record['largest'] or 'none'}")
    if record.get("not_modelled"):
        lines += ["not modelled:", *(f"  {what}" for what in record["not_modelled"])]
    return "\n".join(lines)
