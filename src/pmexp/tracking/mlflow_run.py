"""Keeps the one run of MLflow that mirrors one run folder. It may differ in any way; `settle` mends it.

MLflow can add metrics and an end but not take them back, so a run that holds others than the folder, or has
ended and goes on, is replaced by a new one. Whatever fails here may be tried again: what had arrived is found
or is sent twice, which MLflow keeps once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pmexp.shown import counted
from pmexp.tracking.descriptions import NAME, NOTE, described_child, name_of, note_of
from pmexp.tracking.parent import CHILD_OF, ParentRun
from pmexp.tracking.record import LoggedValue, Record, logged_value
from pmexp.tracking.tracker import MirroredRun, Status
from pmexp.tracking.view import IN_MIB

if TYPE_CHECKING:
    from mlflow.entities import Run

_BATCH = 1000  # MLflow's limit of metrics a request


class MlflowRun(MirroredRun):
    """Keeps the one run of MLflow that mirrors a folder in agreement with it."""

    def __init__(self, parent: ParentRun, record: Record, uri: str) -> None:
        """Makes it a child of the experiment's parent run, which is settled with it."""
        self._experiment, self._parent, self._record = parent.experiment, parent, record
        self._client, self._uri = parent.experiment.client, uri
        self._offset = 0  # where in the journal what was sent ends
        self.id = ""

    def settle(self, status: Status) -> list[str]:
        journal, offset = self._record.values()
        final = self._record.final_values(journal)
        wanted = dict.fromkeys(journal + final + _in_mib(final))  # a set in the journal's order
        started = journal[0].time if journal else None
        self._parent.settle(self._record.labels, self._record.command(), started, self._record.apart)
        run, present, changes = self._chosen(wanted, started, status)
        self.id = run.info.run_id
        missing = [value for value in wanted if value not in present]
        self._send(missing)
        if missing:
            changes.append(f"{counted(len(missing), 'record')} sent")
        changes += self._settle_words(run) + self._settle_status(run, status) + self._settle_artifacts(run)
        self._parent.settle_status()
        self._offset = offset
        return changes

    def follow(self) -> None:
        new, offset = self._record.values(self._offset)
        self._send(new)
        self._offset = offset

    def where(self) -> dict[str, str]:
        return {"uri": self._uri, "mlflow_run_id": self.id}

    def _chosen(
        self, wanted: dict[LoggedValue, None], started: int | None, status: Status
    ) -> tuple["Run", set[LoggedValue], list[str]]:
        """The MLflow run to go on with, its values, and what was changed: any other is deleted."""
        query = f"tags.run_id = '{self._record.run_id}'"
        same = list(self._client.search_runs([self._experiment.id], query))
        values = {run.info.run_id: self._values(run) for run in same}
        fit = [run for run in same if self._fits(run, values[run.info.run_id], wanted, status)]
        chosen = max(fit, key=lambda run: len(values[run.info.run_id]), default=None)
        changes = []
        for run in same:
            if run is not chosen:
                foreign = len(values[run.info.run_id].difference(wanted))
                changes.append(f"deleted {run.info.run_id} with {counted(foreign, 'foreign record')}")
                with self._experiment.writing() as client:
                    client.delete_run(run.info.run_id)
        if chosen:
            return chosen, values[chosen.info.run_id], changes
        written = same[0].data.tags if same else {}  # a person's description stays
        with self._experiment.writing() as client:
            tags = {name: value for name, value in self._tags(written).items() if value is not None}
            created = client.create_run(self._experiment.id, started, tags)
        return created, set(), [*changes, "created"]

    def _values(self, run: "Run") -> set[LoggedValue]:
        histories = (self._client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
        return {logged_value(m.key, m.timestamp, m.step, m.value) for history in histories for m in history}

    def _fits(
        self, run: "Run", values: set[LoggedValue], wanted: dict[LoggedValue, None], status: Status
    ) -> bool:
        """Whether the MLflow run holds nothing that had to be taken back, such as an end of a live run."""
        ended = status == "RUNNING" and run.info.end_time
        params = self._record.params
        return not ended and values <= wanted.keys() and run.data.params.items() <= params.items()

    def _send(self, values: Sequence[LoggedValue]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(values), _BATCH):
            metrics = [
                Metric(v.metric, float("nan") if v.value is None else v.value, v.time, v.step)
                for v in values[start : start + _BATCH]
            ]
            with self._experiment.writing() as client:
                client.log_batch(self.id, metrics=metrics)

    def _tags(self, present: Mapping[str, str]) -> dict[str, str | None]:
        """Returns the tags for a run that has those of `present`; None for one that it must not have."""
        tags = self._record.tags()
        known = {name: value for name, value in tags.items() if value is not None}
        return {
            **tags,
            CHILD_OF: self._parent.id,
            NAME: name_of(present, known),
            NOTE: note_of(present, known, described_child),
        }

    def _settle_words(self, run: "Run") -> list[str]:
        """Sets the params and tags that are missing or differ."""
        from mlflow.entities import Param, RunTag

        params = {k: v for k, v in self._record.params.items() if k not in run.data.params}
        tags = {k: v for k, v in self._tags(run.data.tags).items() if run.data.tags.get(k) != v}
        if not params and not tags:
            return []
        with self._experiment.writing() as client:
            client.log_batch(
                self.id,
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in tags.items() if value is not None],
            )
            for key in (key for key, value in tags.items() if value is None):
                client.delete_tag(self.id, key)
        return [f"{len(words)} {name} set" for name, words in (("params", params), ("tags", tags)) if words]

    def _settle_status(self, run: "Run", status: Status) -> list[str]:
        if run.info.status == status:
            return []
        with self._experiment.writing() as client:
            if status in ("RUNNING", "KILLED"):  # which may go on, and an end cannot be taken back
                client.update_run(self.id, status)
            else:
                client.set_terminated(self.id, status, self._record.ended())
        return [f"{run.info.status} -> {status}"]

    def _settle_artifacts(self, run: "Run") -> list[str]:
        if not self._experiment.takes_files(str(run.info.artifact_uri)):
            return []
        attached = {file.path for file in self._client.list_artifacts(self.id)}
        changes = []
        for file in self._record.artifacts():
            if file.name in attached and self._attached(file.name) == file.read_bytes():
                continue
            self._client.log_artifact(self.id, str(file))
            changes.append(f"{file.name} {'replaced' if file.name in attached else 'attached'}")
        return changes

    def _attached(self, name: str) -> bytes:
        """What MLflow has of a file: of its size alone nobody could tell another digit of a score."""
        with TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(self.id, name, folder)).read_bytes()


def _in_mib(final: Sequence[LoggedValue]) -> list[LoggedValue]:
    """The final values that the table shows in MiB, to three decimals."""
    return [
        value._replace(metric=IN_MIB[value.metric], value=value.value and round(value.value / 2**20, 3))
        for value in final
        if value.metric in IN_MIB
    ]
