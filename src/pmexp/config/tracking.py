"""`tracking.*`: the trackers that mirror a run's journal."""

import os
from dataclasses import dataclass
from enum import Enum

from pmexp.config.checks import check_address, check_between
from pmexp.errors import UserError

_SQLITE = "sqlite:///"
_TRACKING_URIS = (_SQLITE, "http://", "https://", "postgresql", "mysql", "mssql", "databricks")


TRACKERS = ("mlflow", "wandb", "tensorboard", "csv")  # the keys of `tracking` that choose one


class WandbMode(Enum):
    """Says whether W&B sends what it gets or keeps it in files."""

    offline = "offline"
    online = "online"


@dataclass(kw_only=True)
class TrackingConfig:
    """Holds the keys of the group `tracking`."""

    mlflow: bool = False  # mirror to MLflow, at tracking.uri
    wandb: bool = False  # mirror to Weights & Biases, with files in runs_dir/<name>/wandb
    tensorboard: bool = False  # mirror to an event file in the run's folder
    csv: bool = False  # mirror to metrics.csv in the run's folder
    uri: str | None = None  # MLflow's address; null: sqlite in runs_dir
    wandb_mode: WandbMode = WandbMode.offline  # online also sends to the account of WANDB_API_KEY
    interval_s: float = 30.0  # seconds between two batches sent while training

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of the trackers that mirror the run, of TRACKERS; () is tracking=off."""
        return tuple(name for name in TRACKERS if getattr(self, name))

    def ignored(self, name: str) -> str:
        """Why nothing depends on the value of a key; empty where something does."""
        if name == "uri" and not self.mlflow:
            return "this run is not mirrored to MLflow, which alone has one"
        if name == "wandb_mode" and not self.wandb:
            return "this run is not mirrored to W&B"
        return ""

    def __post_init__(self) -> None:
        check_between("tracking.interval_s", self.interval_s, 0.1, 86400.0)
        if self.uri is None:
            return
        check_address(
            "tracking.uri",
            self.uri,
            "set MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD (server) or PGPASSWORD (PostgreSQL)",
        )
        if not self.uri.startswith(_TRACKING_URIS):
            raise UserError(
                f"tracking.uri: {self.uri!r} is no tracker of MLflow; allowed are {', '.join(_TRACKING_URIS)}"
            )
        if self.uri.startswith(_SQLITE):  # whoever reads the record may be in another folder
            file = os.path.expanduser(self.uri.removeprefix(_SQLITE))
            if not file:
                raise UserError(f"tracking.uri: {self.uri!r} names no file; add its path")
            self.uri = _SQLITE + os.path.abspath(file)
