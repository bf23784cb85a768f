"""The MLflow database and experiment, opened under a lock: many processes on a fresh sqlite file crash."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOCK_SECONDS = 300.0
_SQLITE = "sqlite:///"


def silence_mlflow() -> None:
    """No telemetry and no chatter; to be called before mlflow is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def open_experiment(uri: str, name: str, artifacts: Path) -> tuple["MlflowClient", str]:
    """A client of `uri` and the id of experiment `name`, with the tables and the experiment where missing.

    No global state of mlflow is set. A sqlite experiment keeps its files in `artifacts`.
    """
    silence_mlflow()
    from mlflow import MlflowClient

    options: dict[str, Any] = {}
    lock: FileLock | nullcontext[None] = nullcontext()
    if uri.startswith(_SQLITE):
        file = Path(uri.removeprefix(_SQLITE))
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{file}.lock", timeout=_LOCK_SECONDS)
        options["artifact_location"] = artifacts.as_uri()
    with lock:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(name)
        return client, str(found.experiment_id if found else client.create_experiment(name, **options))
