"""One run of MLflow that follows one journal.

The journal is the truth: each start of a run replaces the MLflow run of the try before and mirrors the
journal from its beginning, in batches, so no step is there twice. A tracker that fails costs a warning,
never a training run.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pmexp.config import RunConfig
from pmexp.errors import first_line
from pmexp.journal import read_journal
from pmexp.run_folder import RunFolder
from pmexp.tracking.database import open_experiment

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
_BATCH = 1000  # MLflow's limit of metrics a request
FINAL = "final/"  # prefix of a run's final values, apart from the curves


class NoMirror:
    """tracking=off."""

    reference: Mapping[str, str] | None = None

    def sync(self) -> None: ...

    def finish(
        self, status: Status, metrics: Mapping[str, float], artifacts: list[Path], reason: str = ""
    ) -> None: ...


class Mirror:
    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self._config, self._folder = config, folder
        self._offset = 0
        self._next_sync = 0.0
        self._run = ""
        self._failed = False
        self._guarded(self._start)

    @property
    def reference(self) -> Mapping[str, str] | None:
        """Where the mirror is, for the run's record; None when the tracker failed."""
        uri = self._config.tracking.uri
        return None if self._failed or uri is None else {"uri": uri, "mlflow_run_id": self._run}

    def sync(self) -> None:
        """Sends what the journal got since the last batch, at most every `tracking.interval_s` seconds."""
        if time.monotonic() >= self._next_sync:
            self._guarded(self._send)

    def finish(
        self, status: Status, metrics: Mapping[str, float], artifacts: list[Path], reason: str = ""
    ) -> None:
        """Sends the rest, the final values and the artifacts, and closes the run with its true status.

        `reason`: what MLflow has no status for; it becomes the tag `status`.
        """

        def close() -> None:
            self._send({FINAL + name: value for name, value in metrics.items()})
            for file in artifacts:
                self._client.log_artifact(self._run, str(file))
            if reason:
                self._client.set_tag(self._run, "status", reason)
            self._client.set_terminated(self._run, status)

        self._guarded(close)

    def _start(self) -> None:
        from mlflow.entities import Param, RunTag

        config, uri = self._config, self._config.tracking.uri
        assert uri is not None
        artifacts = Path(config.runs_dir) / "mlartifacts"
        self._client, experiment = open_experiment(uri, config.name, artifacts)
        for old in self._client.search_runs([experiment], f"tags.run_id = '{config.run_id}'"):
            self._client.delete_run(old.info.run_id)
        tags = {"run_id": config.run_id, **{k: str(v) for k, v in config.labels.items()}}
        run_name = f"{config.variant.name}-{config.system.name}-{config.model.name}-s{config.seed}"
        self._run = self._client.create_run(experiment, tags=tags, run_name=run_name).info.run_id
        params = [Param(key, str(value)) for key, value in config.settings.items()]
        self._client.log_batch(self._run, params=params, tags=[RunTag("folder", str(self._folder.path))])
        self._client.log_artifact(self._run, str(self._folder.path / "config.yaml"))
        self._schedule()

    def _send(self, extra: Mapping[str, float] | None = None) -> None:
        from mlflow.entities import Metric

        batch = []
        for record, offset in read_journal(self._folder.journal, self._offset):
            value = float("nan") if record["value"] is None else record["value"]
            batch.append(Metric(record["metric"], value, round(record["time"] * 1000), record["step"]))
            self._offset = offset
        now = round(time.time() * 1000)
        batch += [Metric(name, value, now, 0) for name, value in (extra or {}).items()]
        for start in range(0, len(batch), _BATCH):
            self._client.log_batch(self._run, metrics=batch[start : start + _BATCH])
        self._schedule()

    def _schedule(self) -> None:
        self._next_sync = time.monotonic() + self._config.tracking.interval_s

    def _guarded(self, action: Callable[[], None]) -> None:
        """Runs `action` unless the tracker failed before; its first failure is warned of."""
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            log.warning(
                "tracking stopped, training goes on; the journal has everything (%s)", first_line(error)
            )
