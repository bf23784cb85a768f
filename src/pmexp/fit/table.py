"""Makes the Markdown table of table=FILE.yaml: tasks by arms, each simulated at one budget.

arms:                                       # an override each, or several; savings are against the first one
  - variant=baseline
  - [variant=pm-drop, "system.parts=[tempo]"]
lengths: [128, 512]                         # tokens of each task; left out: the task's own
search: false                               # no largest batch, no longest context: most of the time
tasks:
  BERT-Large, batch 64:                     # overrides of the run configuration
    - task=bert-large-wikitext103
    - train.batch_size=64

A file with `models` in the place of `tasks` is of models that no configuration describes: own_table.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pmexp.command.overrides import merged
from pmexp.errors import UserError, first_line
from pmexp.fit.answer import LENGTH_MULTIPLE, Answer, answer
from pmexp.fit.budget import in_gib
from pmexp.fit.options import COMMAND, FitOptions, fit_options
from pmexp.shown import one_by_one
from pmexp.simulation import NOT_MODELLED
from pmexp.yaml_text import read

Arm = tuple[str, ...]  # overrides

_GIB = 2**30
_COLUMNS = ("task", "tokens", "arm", "peak GiB", "saving", "fits")
_SEARCHED = ("largest batch", "longest context")


def table(options: FitOptions, command: str) -> str:
    """Returns the table that options.table describes. Raises UserError for a file of another form."""
    assert options.table is not None
    plan = _plan(options.table)
    if "models" in plan:
        from pmexp.fit.own_table import own_table

        return own_table(plan, options, command)
    columns = _COLUMNS + _SEARCHED * _searches(plan)
    rows = [row for task in one_by_one("simulating", [*plan["tasks"]]) for row in _rows(task, plan, options)]
    notes = [f"Simulated for {in_gib(options.budget_bytes)} a process: `{command}`"]
    if _searches(plan):
        notes.append(
            "Batches are what one process runs at once; the longest context is at the task's batch, in steps "
            f"of {LENGTH_MULTIPLE}."
        )
    notes.append(f"Not modelled: {'; '.join(NOT_MODELLED)}.")
    head = [_line(columns), f"|{'---|' * len(columns)}"]
    return "\n".join([*head, *map(_line, rows), "", "\n\n".join(notes), ""])


def _rows(task: str, plan: dict[str, Any], options: FitOptions) -> list[list[str]]:
    def asked(arm: Arm, *keys: str) -> FitOptions:
        given = merged([*map(str, plan["tasks"][task]), *arm, *options.overrides], keys)
        return replace(fit_options(COMMAND.read(given)), budget_bytes=options.budget_bytes)

    @cache
    def longest(arm: Arm) -> str:
        return str(answer(asked(arm, "what=length")).largest or "none")

    rows = []
    for length in plan.get("lengths") or [None]:
        baseline = None
        for arm in map(_overrides, plan["arms"]):
            wanted = asked(arm, *([f"dataset.max_length={length}"] if length else []))
            answered = answer(wanted, search_largest=_searches(plan))
            baseline = baseline or answered.asked.peak_bytes
            images = answered.config.takes_images
            row = _row(task, arm, answered, baseline or 0)
            if _searches(plan):
                row += [str(answered.largest or "none"), "" if images else longest(arm)]
            rows.append(row)
    return rows


def _row(task: str, arm: Arm, answered: Answer, baseline: int) -> list[str]:
    images, peak = answered.config.takes_images, answered.asked.peak_bytes or 0
    return [
        task,
        "" if images else str(answered.config.dataset.max_length),
        ", ".join(override.removeprefix("variant=").removeprefix("arm=") for override in arm),
        f"{peak / _GIB:.1f}",
        f"{1 - peak / baseline:.1%}",
        "yes" if answered.asked.fits else "no",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _searches(plan: dict[str, Any]) -> bool:
    return bool(plan.get("search", True))


def _overrides(arm: Any) -> Arm:
    return tuple(map(str, arm)) if isinstance(arm, list) else (str(arm),)


def _plan(file: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = read(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"table: {file} cannot be read: {first_line(error)}") from None
    lists = isinstance(plan, dict) and isinstance(plan.get("arms"), list)
    rows = plan.get("models", plan.get("tasks")) if lists else None
    if not (isinstance(rows, dict) and rows and plan["arms"]):
        raise UserError(
            f"table: {file} needs a list `arms`, and a mapping `tasks` of lists of overrides or `models` of "
            "functions"
        )
    return plan
