"""Names the trackers that there are. Importing them imports no package of theirs."""

from collections.abc import Iterable

from pmexp import config as configuration
from pmexp.extras import need
from pmexp.tracking.csv_file import CsvTracker
from pmexp.tracking.mlflow_tracker import MlflowTracker
from pmexp.tracking.tensorboard_file import TensorboardTracker
from pmexp.tracking.tracker import Tracker
from pmexp.tracking.wandb_run import WandbTracker

TRACKERS: dict[str, type[Tracker]] = {
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
    "tensorboard": TensorboardTracker,
    "csv": CsvTracker,
}
assert TRACKERS.keys() == set(configuration.TRACKERS)


def check_installed(names: Iterable[str]) -> None:
    """Raises UserError where the package of one of these trackers is missing."""
    for name in names:
        if package := TRACKERS[name].package:
            need(f"tracking={name}", package)
