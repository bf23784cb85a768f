"""Opens one experiment of one tracker: of a server, or of a database that many processes write."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from pmexp.errors import UserError
from pmexp.extras import need

if TYPE_CHECKING:
    import sqlite3

    from mlflow import MlflowClient

_LOCK_SECONDS, _POLL_SECONDS = 300.0, 0.2
SQLITE = "sqlite:///"
# A tracker that does not answer is asked again by the mirror, so that nothing below it needs patience.
_IMPATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
_seen: dict[Path, list[int]] = {}  # inodes of each database file that this process has opened


def silence_mlflow() -> None:
    """Turns off telemetry and chatter; to be called before mlflow is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")  # it logs a traceback of each failed call
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def mlflow_uri(uri: str) -> str:
    """Spells a tracker's address for MLflow: as a URL, where ours names a database's file as it is."""
    if not uri.startswith(SQLITE):
        return uri
    from sqlalchemy import URL

    url = URL.create("sqlite", database=uri.removeprefix(SQLITE))
    if url.render_as_string() == uri:
        return uri
    # Under the driver's own name, as MLflow makes folders of what it reads undecoded behind sqlite:///.
    return url.set(drivername="sqlite+pysqlite").render_as_string()


def file_of(uri: str) -> Path | None:
    """The file of a sqlite database; None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


class OpenExperiment:
    """Holds a client of a tracker and the id of one experiment.

    No global state of mlflow is set. What is missing is made where `runs_dir` is given: a sqlite database,
    whose experiments keep their files beside the runs, and the experiment.
    """

    def __init__(self, uri: str, name: str, runs_dir: Path | None = None) -> None:
        """Raises UserError for an experiment that was deleted or, without `runs_dir`, is missing, and what
        MLflow raises for any other fault."""
        need("tracking", "mlflow")
        silence_mlflow()
        for variable, value in _IMPATIENCE.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        self.name, self.runs_dir = name, runs_dir
        self._file = file_of(uri)
        if self._file and not runs_dir and not self._file.is_file():
            raise UserError(f"there is no database at {uri}")
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        # Who makes nothing waits for no writer, which may be one that somebody has suspended.
        makes_nothing = self._file and not runs_dir and self._file.stat().st_size
        with nullcontext() if makes_nothing else self._locked():
            if self._file:
                create_database(self._file)
                uri = SQLITE + _path_of_its_own(self._file)
            uri = mlflow_uri(uri)
            self.client: MlflowClient = MlflowClient(tracking_uri=uri, registry_uri=uri)
            known = self._find()
            if known is None and runs_dir is None:
                names = ", ".join(sorted(experiment.name for experiment in self.client.search_experiments()))
                raise UserError(f"there is no experiment {name!r} at {uri}; there are: {names}")
            self.id = known or self._create()

    def takes_files(self, place: str) -> bool:
        """Whether a run whose artifacts lie in `place` can get more: not where the runs were moved since.

        MLflow keeps the old place for ever, and cannot be told of the new one.
        """
        if not self._file:
            return True
        if self.runs_dir:
            return place.startswith(f"{_artifacts(self.runs_dir)}/")
        return Path(url2pathname(urlsplit(place).path)).parents[2].is_dir()

    @contextmanager
    def writing(self) -> Iterator["MlflowClient"]:
        """Lends the client to whoever writes: one process at a time where the tracker is a sqlite file.

        SQLite alone gives up on a database that many write.
        """
        with self._locked():
            yield self.client

    def _locked(self) -> FileLock | nullcontext[None]:
        if not self._file:
            return nullcontext()
        return FileLock(f"{self._file}.lock", timeout=_LOCK_SECONDS, poll_interval=_POLL_SECONDS)

    def _find(self) -> str | None:
        experiment = self.client.get_experiment_by_name(self.name)
        if experiment and experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"name: experiment {self.name!r} was deleted in MLflow; restore it (mlflow experiments "
                f"restore --experiment-id {experiment.experiment_id}) or choose another name"
            )
        return str(experiment.experiment_id) if experiment else None

    def _create(self) -> str:
        assert self.runs_dir
        options: dict[str, Any] = {"artifact_location": _artifacts(self.runs_dir)} if self._file else {}
        try:
            return str(self.client.create_experiment(self.name, **options))
        except Exception:
            if made := self._find():  # another process was quicker
                return made
            raise


def _artifacts(runs_dir: Path) -> str:
    return (runs_dir / "mlartifacts").as_uri()


def create_database(file: Path) -> None:
    """Makes the tables in another file and renames it, so that a kill meanwhile leaves no half of them."""
    with suppress(FileNotFoundError):
        if file.stat().st_size:
            return
    from mlflow import MlflowClient

    prefix = f".{file.name}.new-"
    aside = file.with_name(prefix + uuid.uuid4().hex)  # a name of its own: MLflow keeps connections by name
    for left in file.parent.glob(f"{prefix}*"):  # a killed process left it; whoever is here has the lock
        left.unlink()
    try:
        uri = mlflow_uri(f"{SQLITE}{aside}")
        with _without_syncs(aside):
            MlflowClient(tracking_uri=uri, registry_uri=uri)
        with aside.open("rb+") as stream:
            os.fsync(stream.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _without_syncs(file: Path) -> Iterator[None]:
    """Has sqlite write to `file` without waiting for the disk, and without a journal on it.

    MLflow makes its tables in a hundred transactions, each of which would wait several times.
    """
    from sqlalchemy import Engine, event

    def opened(connection: "sqlite3.Connection", _: object) -> None:
        (_, _, name), *_ = connection.execute("PRAGMA database_list")
        if Path(name).name == file.name:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA journal_mode=MEMORY")

    event.listen(Engine, "connect", opened)
    try:
        yield
    finally:
        event.remove(Engine, "connect", opened)


def _path_of_its_own(file: Path) -> str:
    """Returns a spelling of `file`'s path that no earlier, deleted file of its name has had.

    MLflow keeps connections by URI, and sqlite refuses one to a file that was deleted since. As connections
    stay open, no two of these files have the same inode.
    """
    inodes, inode = _seen.setdefault(file, []), file.stat().st_ino
    if inode not in inodes:
        inodes.append(inode)
    return f"{file.parent}/{'./' * inodes.index(inode)}{file.name}"
