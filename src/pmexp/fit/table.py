"""table=FILE.yaml: tasks by variants, each simulated at one budget, as a Markdown table.

variants: [baseline, pm-drop]     # names of conf/variant; savings are against the first one
tasks:
  BERT-Large, 64 x 512:           # overrides of the run configuration, and keys of pmexp.fit
    - model=tinybert
    - dataset.objective=masked_lm
    - train.batch_size=64
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pmexp.errors import UserError, first_line
from pmexp.fit.answer import Answer, answer
from pmexp.fit.options import FitOptions, fit_options
from pmexp.simulation import NOT_MODELLED

_GIB = 2**30
_HEAD = "| task | variant | peak GiB | saving | fits | largest batch | longest context |"


def table(options: FitOptions, command: str) -> str:
    """Raises UserError for a file that is no such table."""
    assert options.table is not None
    plan = _plan(options.table)
    rows = [row for task in plan["tasks"] for row in _rows(task, plan, options)]
    notes = [
        f"Simulated for {options.budget_bytes / 1e9:g} GB (10^9 bytes): `{command}`",
        f"Not modelled: {'; '.join(NOT_MODELLED)}.",
    ]
    return "\n".join([_HEAD, "|---|---|---|---|---|---|---|", *rows, "", *notes, ""])


def _rows(task: str, plan: dict[str, Any], options: FitOptions) -> list[str]:
    rows, baseline = [], None
    for variant in plan["variants"]:
        asked = fit_options([*map(str, plan["tasks"][task]), *options.overrides, f"variant={variant}"])
        asked = replace(asked, budget_bytes=options.budget_bytes)
        batch = answer(replace(asked, what="batch"))
        peak = batch.asked.peak_bytes or 0
        baseline = baseline or peak
        cells = [
            task,
            variant,
            f"{peak / _GIB:.1f}",
            f"{1 - peak / baseline:.1%}",
            "yes" if batch.asked.fits else "no",
            str(batch.largest or "none"),
            _longest(batch, asked),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _longest(batch: Answer, asked: FitOptions) -> str:
    if batch.config.model.takes_images:
        return ""
    return str(answer(replace(asked, what="length", global_batch=None)).largest or "none")


def _plan(file: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"table: {file} cannot be read: {first_line(error)}") from None
    lists = isinstance(plan, dict) and isinstance(plan.get("variants"), list)
    if not (lists and isinstance(plan.get("tasks"), dict) and plan["variants"] and plan["tasks"]):
        raise UserError(f"table: {file} needs a list `variants` and a mapping `tasks` of lists of overrides")
    return plan
