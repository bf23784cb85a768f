"""Makes the Markdown table of table=FILE.yaml: tasks by arms, each simulated at one budget.

arms: [variant=baseline, variant=pm-drop]   # an override each; savings are against the first one
lengths: [128, 512]                         # tokens of each task; left out: the task's own
tasks:
  BERT-Large, batch 64:                     # overrides of the run configuration
    - task=bert-large-wikitext103
    - train.batch_size=64
"""

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
from pmexp.simulation import NOT_MODELLED

_GIB = 2**30
_HEAD = "| task | tokens | arm | peak GiB | saving | fits | largest batch | longest context |"


def table(options: FitOptions, command: str) -> str:
    """Returns the table that options.table describes. Raises UserError for a file of another form."""
    assert options.table is not None
    plan = _plan(options.table)
    rows = [row for task in plan["tasks"] for row in _rows(task, plan, options)]
    notes = [
        f"Simulated for {in_gib(options.budget_bytes)} a process: `{command}`",
        "Batches are what one process runs at once; the longest context is at the task's batch, in steps "
        f"of {LENGTH_MULTIPLE}.",
        f"Not modelled: {'; '.join(NOT_MODELLED)}.",
    ]
    return "\n".join([_HEAD, "|---|---|---|---|---|---|---|---|", *rows, "", "\n\n".join(notes), ""])


def _rows(task: str, plan: dict[str, Any], options: FitOptions) -> list[str]:
    def asked(arm: str, *keys: str) -> FitOptions:
        given = merged([*map(str, plan["tasks"][task]), arm, *options.overrides], keys)
        return replace(fit_options(COMMAND.read(given)), budget_bytes=options.budget_bytes)

    @cache
    def longest(arm: str) -> str:
        return str(answer(asked(arm, "what=length")).largest or "none")

    rows = []
    for length in plan.get("lengths") or [None]:
        baseline = None
        for arm in plan["arms"]:
            batch = answer(asked(arm, *([f"dataset.max_length={length}"] if length else [])))
            baseline = baseline or batch.asked.peak_bytes
            rows.append(_row(task, arm, batch, baseline or 0, longest))
    return rows


def _row(task: str, arm: str, batch: Answer, baseline: int, longest: Any) -> str:
    images, peak = batch.config.model.takes_images, batch.asked.peak_bytes or 0
    cells = [
        task,
        "" if images else str(batch.config.dataset.max_length),
        arm.partition("=")[2],
        f"{peak / _GIB:.1f}",
        f"{1 - peak / baseline:.1%}",
        "yes" if batch.asked.fits else "no",
        str(batch.largest or "none"),
        "" if images else longest(arm),
    ]
    return f"| {' | '.join(cells)} |"


def _plan(file: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"table: {file} cannot be read: {first_line(error)}") from None
    lists = isinstance(plan, dict) and isinstance(plan.get("arms"), list)
    if not (lists and isinstance(plan.get("tasks"), dict) and plan["arms"] and plan["tasks"]):
        raise UserError(f"table: {file} needs a list `arms` and a mapping `tasks` of lists of overrides")
    return plan
