"""Opens MLflow's runs, in one experiment of one server or database for each experiment of pmexp."""

from pathlib import Path

from pmexp.config import RunConfig
from pmexp.tracking.database import OpenExperiment
from pmexp.tracking.mlflow_run import MlflowRun
from pmexp.tracking.parent import ParentRun
from pmexp.tracking.record import Record
from pmexp.tracking.tracker import Tracker


class MlflowTracker(Tracker):
    """Opens MLflow's runs; those of one experiment share their parent run."""

    title = "MLflow"
    package = "mlflow"

    def __init__(self) -> None:
        self._parents: dict[tuple[str, str], ParentRun] = {}  # by address and experiment

    def place(self, config: RunConfig) -> str:
        return f"tracking.uri: {config.tracking.uri}"

    def open(self, config: RunConfig, record: Record) -> MlflowRun:
        uri = str(config.tracking.uri)
        key = (uri, config.name)
        if key not in self._parents:
            self._parents[key] = ParentRun(OpenExperiment(uri, config.name, Path(config.runs_dir)))
        return MlflowRun(self._parents[key], record, uri)

    def changes(self) -> list[str]:
        return [f"parent: {', '.join(parent.changes)}" for parent in self._parents.values() if parent.changes]
