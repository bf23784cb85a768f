"""Puts the report beside the runs it compares: an artifact `report/` of each of their MLflow runs."""

import logging
import os
from collections.abc import Collection
from pathlib import Path

from pmexp.errors import first_line

_MOST_RUNS = 100  # each gets a copy of about half a megabyte


def attach(name: str, tracking_uris: Collection[str], report: Collection[Path]) -> list[str]:
    """Attaches the files to the finished runs of experiment `name` at each URI; a line for each that failed.

    A tracker that cannot be reached costs the attachment, never the report.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    complaints = []
    for uri in sorted(tracking_uris):
        try:
            complaints += _attach(name, uri, report)
        except Exception as error:
            logging.getLogger(__name__).debug("attaching failed", exc_info=True)
            complaints.append(f"the report is not attached in MLflow at {uri}: {first_line(error)}")
    return complaints


def _attach(name: str, uri: str, report: Collection[Path]) -> list[str]:
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return [f"the report is not attached in MLflow: there is no database at {uri}"]
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return [f"the report is not attached in MLflow: there is no experiment '{name}' at {uri}"]
    runs = client.search_runs(
        [experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=_MOST_RUNS + 1
    )
    if len(runs) > _MOST_RUNS:
        return [f"the report is not attached in MLflow: more than {_MOST_RUNS} runs would each get a copy"]
    for run in runs:
        for file in report:
            client.log_artifact(run.info.run_id, str(file), "report")
    return []
