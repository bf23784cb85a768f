"""`tracking.*`: the tracker of experiments."""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qs, urlsplit

from pmexp.config.checks import check_between
from pmexp.errors import UserError

_TRACKING_URIS = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")
_SECRETS = ("password", "passwd", "pwd", "secret", "token")  # in the name of a URI's parameter


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
        try:
            urlsplit(self.uri).port  # noqa: B018  looks whether there is one
        except ValueError as error:
            raise UserError(f"tracking.uri: {self.uri!r} is no address: {error}") from None
        if _holds_secret(self.uri):
            raise UserError(
                "tracking.uri: it holds a password, which every record of a run would show; leave it out and "
                "set MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD (server) or PGPASSWORD (PostgreSQL)"
            )
        if not self.uri.startswith(_TRACKING_URIS):
            raise UserError(
                f"tracking.uri: {self.uri!r} is no tracker of MLflow; allowed are {', '.join(_TRACKING_URIS)}"
            )


def _holds_secret(uri: str) -> bool:
    """A password before the host, a token in its user's place at a server, or a parameter named like one."""
    parts = urlsplit(uri)
    user, at, _ = parts.netloc.rpartition("@")
    named = any(secret in name.lower() for name in parse_qs(parts.query) for secret in _SECRETS)
    return ":" in user or (bool(at) and parts.scheme in ("http", "https")) or named
