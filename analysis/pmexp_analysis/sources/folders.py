"""The run folders runs/<name>/<run id>/ as an Experiment; the journals are the truth."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pmexp.errors import UserError, first_line
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import FoundRun, each_run
from pmexp.run_folder.journal_lines import Curve, read_curve
from pmexp.run_folder.state import State
from pmexp_analysis.sources.assemble import assemble
from pmexp_analysis.sources.experiment import Experiment, Labels, Run
from pmexp_analysis.sources.protocols import NO_CHOICE, Choice, parsed
from pmexp_analysis.sources.values import from_catalog

_UNKNOWN = "unknown"  # in the place of a label that no file of a damaged run tells


def load_runs(runs_dir: Path, name: str, choice: Choice = NO_CHOICE) -> Experiment:
    """Reads every run of experiment `name` in one pass, linear in runs and lines. A run whose folder is
    damaged has no result, and its line in the report says what is damaged.

    Raises UserError (one line) for an unknown experiment, a plan that cannot be read, or no finished run.
    """
    return assemble(name, str(runs_dir / name), map(_run, each_run(runs_dir, name)), choice)


def _run(told_run: FoundRun) -> Run:
    damage, curve, folder = told_run.damage, told_run.curve or Curve(), RunFolder(told_run.path)
    try:
        if not damage and told_run.curve is None:
            curve = read_curve(folder.journal)
        if not damage:
            _check(told_run, curve)
    except UserError as error:
        damage = first_line(error)
    told: dict[str, Any] = {"labels": _labels(told_run.labels), "settings": told_run.settings, "curve": curve}
    told["is_planned"] = told_run.is_planned
    if told_run.state is not State.pending:
        told["folder"] = told_run.path
    summary = told_run.summary
    if damage or summary is None:
        state = State.failed if damage else told_run.state
        return Run(told_run.run_id, state=state.value, why=damage or _why(told_run, curve), **told)
    uri = summary.tracking.get("uri")
    told |= {"environment": summary.environment, "protocol": summary.protocol}
    if isinstance(uri, str):
        told |= {"tracking_uri": uri, "mlflow_id": folder.mlflow_run_id()}
    told |= {name: getattr(summary, name) for name in ("weights_sha256", "chance", "samples")}
    if told_run.state is State.oom:
        return Run(told_run.run_id, state=told_run.state.value, why=f"out of memory: {summary.error}", **told)
    return Run(told_run.run_id, finals=summary.metrics, **told)


def _check(told_run: FoundRun, curve: Curve) -> None:
    """Raises UserError where the report could make nothing of a summary."""
    if (summary := told_run.summary) is None:
        return
    if summary.protocol and (said := _protocol_fault(orjson.dumps(summary.protocol))):
        raise UserError(f"the summary of run {told_run.run_id}{said}")
    for name in summary.metrics.keys() - set(curve.metrics):
        from_catalog(name)
    if summary.journal is not None and (other := _not_in_journal(summary.metrics, curve)):
        raise UserError(
            f"the summary of run {told_run.run_id} is damaged: its {other} is not the value that its journal "
            "ends with; its values are not to be trusted, so remove the run's folder and run it again"
        )


def _not_in_journal(finals: Mapping[str, float], curve: Curve) -> str:
    """The first of `finals` that is not the last value of `curve`, or of validation, which is that of the
    selected step, none of its values; empty where all are."""
    last = dict(zip(curve.metrics, curve.values, strict=True))
    other = [name for name, value in finals.items() if not _is_number(value, last.get(name))]
    validated = set(zip(curve.metrics, curve.values, strict=True)) if other else set()
    is_selected = ((name, finals[name]) in validated and name.startswith("val/") for name in other)
    return next((name for name, known in zip(other, is_selected, strict=True) if not known), "")


def _is_number(value: float, other: float | None) -> bool:
    return value == other or (other is not None and value != value and other != other)


@cache
def _protocol_fault(told: bytes) -> str:
    """What is wrong with a protocol, as JSON; empty where nothing is. Runs share a few."""
    try:
        parsed(told.decode(), "")
    except UserError as error:
        return str(error)
    return ""


def _labels(told: Mapping[str, str | int]) -> Labels:
    return Labels(
        str(told.get("task", _UNKNOWN)),
        str(told.get("system", _UNKNOWN)),
        str(told.get("variant", _UNKNOWN)),
        int(told.get("seed", -1)),
    )


def _why(told_run: FoundRun, curve: Curve) -> str:
    if told_run.state is State.pending:
        return "planned, never started"
    if told_run.failure:
        log = f" (log: {told_run.failure['log']})" if told_run.failure.get("log") else ""
        return f"{told_run.state.value}: {told_run.failure['error']}{log}"
    steps = np.asarray(curve.steps, dtype=np.float64)
    reached = f"its journal ends at step {int(steps.max())}" if len(steps) else "its journal has no line yet"
    return f"{told_run.state.value}: no summary ({reached})"
