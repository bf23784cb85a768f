"""The runs of an MLflow experiment as an Experiment; `final/<metric>` are results, plain names are curves."""

import math
import os
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pmexp.errors import UserError, first_line
from pmexp.metrics.catalog import metric_of
from pmexp.run_folder.journal_lines import Curve
from pmexp.run_folder.state import State
from pmexp.run_folder.summary import Summary, read_summary
from pmexp.tracking.database import file_of, mlflow_uri
from pmexp_analysis.sources.assemble import assemble
from pmexp_analysis.sources.experiment import FAILED, OUT_OF_MEMORY, Experiment, Labels, Run
from pmexp_analysis.sources.protocols import NO_CHOICE, Choice

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

_FINAL = "final/"
_CURVES = ("train/", "val/", "grad/")
_LARGEST = 1.7976931348623157e308  # MLflow's database stores an infinity as the largest float
_PAGE = 1000


def load_mlflow(uri: str, name: str, choice: Choice = NO_CHOICE) -> Experiment:
    """Read experiment `name` from the tracking server or database at `uri`.

    Raises UserError (one line) for an unreachable store, an unknown experiment, or no finished run.
    """
    file = file_of(uri)
    if file and not file.is_file():
        raise UserError(f"no database at {uri}: check tracking_uri")  # MLflow would create an empty one
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its default waits for minutes
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each run's summary
    try:
        client = MlflowClient(tracking_uri=mlflow_uri(uri))
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            there = ", ".join(sorted(e.name for e in client.search_experiments())) or "none"
            raise UserError(f"no experiment '{name}' at {uri} (there are: {there})")
        latest = _latest(_search(client, experiment.experiment_id))
        runs = [_with_summary(client, _read_run(client, run, uri)) for run in latest]
    except (MlflowException, SQLAlchemyError) as error:
        why = first_line(error)
        raise UserError(f"cannot read MLflow at {uri}: {why}; check tracking_uri") from None
    return assemble(name, uri, runs, choice)


def _search(client: MlflowClient, experiment_id: str) -> list["MlflowRun"]:
    runs: list[MlflowRun] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=_PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return [run for run in runs if "run_id" in run.data.tags]


def _latest(runs: list["MlflowRun"]) -> list["MlflowRun"]:
    """One MLflow run a run id: its last finished attempt, or its last one where none finished."""
    best: dict[str, MlflowRun] = {}
    for run in sorted(runs, key=lambda r: (r.info.status == "FINISHED", r.info.start_time or 0)):
        best[run.data.tags["run_id"]] = run
    return [best[run_id] for run_id in sorted(best)]


def _read_run(client: MlflowClient, run: "MlflowRun", uri: str) -> Run:
    tags, status = run.data.tags, run.info.status
    try:
        labels = Labels(tags["task"], tags["system"], tags["variant"], int(tags["seed"]))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"MLflow run {run.info.run_id} has no usable tag {error}: it was not recorded by pmexp; delete it"
        ) from None
    known = Run(tags["run_id"], labels, settings=run.data.params, tracking_uri=uri, mlflow_id=run.info.run_id)
    finals = {
        metric.removeprefix(_FINAL): _value(value)
        for metric, value in run.data.metrics.items()
        if metric.startswith(_FINAL)
    }
    if tags.get("status") == "oom":
        return replace(known, state=OUT_OF_MEMORY, why=f"out of memory, {status} in MLflow")
    if status == "RUNNING":
        return replace(known, state=State.running.value, why="RUNNING in MLflow: still running, or killed")
    if status != "FINISHED":
        return replace(known, state=FAILED, why=f"{status} in MLflow")
    if not finals:
        return replace(known, state=FAILED, why=f"FINISHED in MLflow without any {_FINAL} metric")
    return replace(known, finals=finals, curve=_read_curves(client, run))


def _with_summary(client: MlflowClient, run: Run) -> Run:
    """Adds what MLflow has in a file alone to a run with a result: environment, protocol, weights' digest."""
    if run.finals is None and run.state != OUT_OF_MEMORY:
        return run
    summary = _summary(client, run)
    if summary is None:
        return run
    return replace(
        run,
        environment=summary.environment,
        protocol=summary.protocol,
        weights_sha256=summary.weights_sha256,
        chance=summary.chance,
        samples=summary.samples,
    )


def _summary(client: MlflowClient, run: Run) -> Summary | None:
    """summary.json as MLflow keeps it; None where its files are out of reach, as of runs that were moved."""
    assert run.mlflow_id
    try:
        with tempfile.TemporaryDirectory() as folder:
            return read_summary(client.download_artifacts(run.mlflow_id, "summary.json", folder))
    except (MlflowException, OSError, UserError):
        return None


def _read_curves(client: MlflowClient, run: "MlflowRun") -> Curve:
    metrics, units, directions, steps, values = [], [], [], [], []
    started = math.inf
    for name in sorted(metric for metric in run.data.metrics if metric.startswith(_CURVES)):
        try:
            metric = metric_of(name)
        except KeyError as error:
            raise UserError(str(error.args[0])) from None
        history = client.get_metric_history(run.info.run_id, name)
        metrics += [name] * len(history)
        units += [metric.unit] * len(history)
        directions += [metric.direction] * len(history)
        steps += [float(point.step) for point in history]
        values += [_value(point.value) for point in history]
        started = min([started, *(point.timestamp / 1000 for point in history)])
    return Curve(metrics, units, directions, steps, values, started)


def _value(value: float) -> float:
    return value if abs(value) < _LARGEST else math.nan
