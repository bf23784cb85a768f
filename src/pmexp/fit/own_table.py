"""Makes the Markdown table of table=FILE.yaml where the file names models of one's own: models by arms.

models:                          # functions without arguments that return a model, a batch and a loss or None
  Whisper-Small: pmexp.zoo.real_sizes:whisper_small
parts: [bf16]                    # what every step has
arms:                            # what it has beside, as in `predict`; savings are against the first one
  - []
  - [packed, tempo]
"""

from pkgutil import resolve_name
from typing import Any

from pmexp.errors import UserError, error_line
from pmexp.fit.budget import in_gib
from pmexp.fit.forecast import MEASURED, StepPeak, change
from pmexp.fit.options import FitOptions
from pmexp.shown import class_of, one_by_one
from pmexp.simulation import NOT_MODELLED
from pmexp.working_folder import search_here

_GIB = 2**30
_COLUMNS = ("model", "arm", "peak GiB", "saving", "products", "traffic", "fits")


def own_table(plan: dict[str, Any], options: FitOptions, command: str) -> str:
    """Returns the table that `plan` describes. Raises UserError for what cannot be imported or simulated."""
    models = one_by_one("simulating", [*plan["models"]])
    rows = [row for name in models for row in _rows(name, plan, options)]
    lines = [f"| {' | '.join(cells)} |" for cells in (_COLUMNS, ["---"] * len(_COLUMNS), *rows)]
    notes = [
        f"Simulated for {in_gib(options.budget_bytes)}: `{command}`",
        "Products are the operations of matrix products, traffic is the bytes that operators read and write.",
        f"Error bar: {MEASURED}.",
        f"Not modelled: {'; '.join(NOT_MODELLED)}.",
    ]
    return "\n".join([*lines, "", "\n\n".join(notes), ""])


def _rows(name: str, plan: dict[str, Any], options: FitOptions) -> list[list[str]]:
    model, batch, loss = _built(name, str(plan["models"][name]))
    from pmexp.fit.own_model import predict  # not before a model's own module has prepared what it needs

    rows, first = [], None
    for arm in plan["arms"]:
        parts = [*plan.get("parts", []), *arm]
        step = predict(model, batch, loss=loss, parts=parts, methods=()).asked
        first = first or step
        rows.append([name, ", ".join(arm) or "stock", *_cells(step, first, options.budget_bytes)])
    return rows


def _cells(step: StepPeak, first: StepPeak, budget_bytes: int) -> list[str]:
    return [
        f"{step.peak_bytes / _GIB:.1f}",
        f"{1 - step.peak_bytes / first.peak_bytes:.1%}",
        change(step.products, first.products),
        change(step.traffic_bytes, first.traffic_bytes),
        {True: "yes", False: "no", None: "may"}[step.fits(f"{budget_bytes}")],
    ]


def _built(name: str, path: str) -> Any:
    search_here()
    try:
        built = resolve_name(path)()
    except (
        Exception,
        SystemExit,
    ) as error:  # importing and calling run somebody's code, which may do anything
        raise UserError(
            f"models.{name}: {path} cannot be had ({error_line(error)}); name module:function"
        ) from error
    if not (isinstance(built, tuple | list) and len(built) == 3):
        raise UserError(
            f"models.{name}: {path} returns {class_of(built)}; return a model, a batch and a loss or None"
        )
    return built
