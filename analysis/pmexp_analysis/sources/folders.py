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


def _run(found: FoundRun) -> Run:
    damage, curve, folder = found.damage, found.curve or Curve(), RunFolder(found.path)
    try:
        if not damage and found.curve is None:
            curve = read_curve(folder.journal)
        if not damage:
            _check(found, curve)
    except UserError as error:
        damage = first_line(error)
    told: dict[str, Any] = {"labels": _labels(found.labels), "settings": found.settings, "curve": curve}
    if found.state is not State.pending:
        told["folder"] = found.path
    summary = found.summary
    if damage or summary is None:
        state = State.failed if damage else found.state
        return Run(found.run_id, state=state.value, why=damage or _why(found, curve), **told)
    uri = summary.tracking.get("uri")
    told |= {"environment": summary.environment, "protocol": summary.protocol}
    if isinstance(uri, str):
        told |= {"tracking_uri": uri, "mlflow_id": folder.mlflow_run_id()}
    told |= {"weights_sha256": summary.weights_sha256, "chance": summary.chance}
    if found.state is State.oom:
        return Run(found.run_id, state=found.state.value, why=f"out of memory: {summary.error}", **told)
    return Run(found.run_id, finals=summary.metrics, **told)


def _check(found: FoundRun, curve: Curve) -> None:
    """Raises UserError where the report could make nothing of a summary."""
    if (summary := found.summary) is None:
        return
    if summary.protocol and (said := _protocol_fault(orjson.dumps(summary.protocol))):
        raise UserError(f"the summary of run {found.run_id}{said}")
    for name in summary.metrics.keys() - set(curve.metrics):
        from_catalog(name)


@cache
def _protocol_fault(told: bytes) -> str:
    """What is wrong with a protocol, as JSON; empty where nothing is. Runs share a few."""
    try:
        parsed(orjson.loads(told), "")
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


def _why(found: FoundRun, curve: Curve) -> str:
    if found.state is State.pending:
        return "planned, never started"
    if found.failure:
        log = f" (log: {found.failure['log']})" if found.failure.get("log") else ""
        return f"{found.state.value}: {found.failure['error']}{log}"
    steps = np.asarray(curve.steps, dtype=np.float64)
    reached = f"its journal ends at step {int(steps.max())}" if len(steps) else "its journal has no line yet"
    return f"{found.state.value}: no summary ({reached})"
