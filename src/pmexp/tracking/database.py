"""The MLflow database and experiment, made once under a lock: many processes on a fresh sqlite file crash."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOCK_SECONDS = 300.0


def client(uri: str) -> "MlflowClient":
    """A client of `uri`. No global state of mlflow is set, and no telemetry sent."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient

    file = _sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(mlflow: "MlflowClient", uri: str, name: str, artifacts: Path) -> str:
    """The id of experiment `name`, made where it is missing; with it the database's tables."""
    with _lock(uri):
        found = mlflow.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location: dict[str, Any] = {"artifact_location": artifacts.as_uri()} if _sqlite_file(uri) else {}
        return str(mlflow.create_experiment(name, **location))


def _lock(uri: str) -> AbstractContextManager[object]:
    file = _sqlite_file(uri)
    return FileLock(f"{file}.lock", timeout=_LOCK_SECONDS) if file else nullcontext()


def _sqlite_file(uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) else None
