"""The command: keys in, exit code out."""

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmexp.command.exit_code import exit_code
from pmexp.errors import UserError
from pmexp.fit.options import FitOptions, fit_options
from pmexp.masking import masked_arguments

_USAGE = """\
python -m pmexp.fit [key=value ...]   does a training step fit into memory, and what is the largest that does?
  method=simulate         predicts the peak; needs no GPU, no data, no checkpoint (default)
  method=measure          real steps on the run's device, with its data
  what=batch              the largest batch that one process runs at once (default), or what=length: the
                          longest text in steps of 64
  budget_gb=80            memory of the device, in 10^9 bytes
  global_batch=N          samples a step: only what divides it is tried, and gradients are accumulated;
                          method=measure takes train.batch_size
  table=FILE.yaml         a table of tasks by variants or other arms, by simulation; see fit/table.py
  out=FILE                writes the answer there: JSON, or the table as Markdown
  every key of pmexp.train, such as model=tinybert dataset=reuters-r8 variant=pm-drop train.batch_size=64
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 answered, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE, end="")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return exit_code(lambda: _answer(given))


def _answer(arguments: list[str]) -> None:
    options = fit_options(arguments)
    if options.out is not None:
        _check_out(options.out)
    text = _run(options, shlex.join(["python", "-m", "pmexp.fit", *masked_arguments(arguments)]))
    if options.out is not None:
        options.out.write_text(text)
        print(options.out)


def _run(options: FitOptions, command: str) -> str:
    """Prints the answer and returns what is written of it."""
    import torch

    from pmexp.fit.answer import answer
    from pmexp.fit.table import table
    from pmexp.measure.environment import environment
    from pmexp.simulation import NOT_MODELLED

    if options.table is not None:
        markdown = table(options, command)
        print(markdown, end="")
        return markdown
    found = answer(options)
    record = found.record(options)
    if options.method == "simulate":
        record["not_modelled"] = list(NOT_MODELLED)
    cuda = options.method == "measure" and torch.cuda.is_available()
    record |= {"command": command, "environment": environment(torch.device("cuda" if cuda else "cpu"))}
    print(_summary(record))
    return json.dumps(record, indent=2) + "\n"


def _summary(record: dict[str, Any]) -> str:
    budget, peak = record["budget_bytes"], record["peak_bytes"]
    fits = "fits" if record["fits"] else "does not fit"
    lines = [f"{record['what']} {record['asked']} {fits} into {_gib(budget)} ({record['method']}d)"]
    if peak is not None:
        lines.append(f"peak {_gib(peak)}" + f" ({record['note']})" * bool(record["note"]))
        lines += [f"  {name:<12}{_gib(size):>13}" for name, size in record["by_category"].items()]
    else:
        lines.append(record["note"])
    lines.append(f"largest {record['what']} that fits: {record['largest'] or 'none'}")
    if record.get("not_modelled"):
        lines.append("not modelled: " + "; ".join(record["not_modelled"]))
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:.4g} GiB"


def _check_out(out: Path) -> None:
    """Before minutes of work: the file's folder has to be there or to be made."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: {out.parent} cannot be made: {error.strerror}; name another file") from None
    if out.is_dir():
        raise UserError(f"out: {out} is a folder; name a file")
