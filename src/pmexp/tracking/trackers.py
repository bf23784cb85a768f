"""Names the trackers that there are. Importing them imports no package of theirs."""

from collections.abc import Iterable
from importlib.util import find_spec

from pmexp import config as configuration
from pmexp.errors import UserError
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
        package = TRACKERS[name].package
        if package and find_spec(package) is None:
            raise UserError(
                f"tracking={name}: needs {package}, which is not installed; pip install 'pmexp[{name}]' "
                "brings it, and tracking=off does without"
            )
