"""`tracking.*`: the tracker of experiments."""

import os
from dataclasses import dataclass
from enum import Enum

from pmexp.config.checks import check_address, check_between
from pmexp.errors import UserError

_SQLITE = "sqlite:///"
_TRACKING_URIS = (_SQLITE, "http://", "https://", "postgresql", "mysql", "mssql", "databricks")


class Tracker(Enum):
    mlflow = "mlflow"
    off = "off"


@dataclass(kw_only=True)
class TrackingConfig:
    kind: Tracker = Tracker.mlflow
    uri: str | None = None  # null: sqlite in runs_dir
    interval_s: float = 30.0  # seconds between two batches sent while training

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
