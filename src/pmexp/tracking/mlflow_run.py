"""The one run of MLflow that mirrors one run folder. It may be out of step in any way; `settle` mends it.

MLflow can add metrics but not take them back, so a run that holds others than the folder is replaced by a
new one. Whatever fails here may be tried again: what had arrived is found or is sent twice, which MLflow
keeps once.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pmexp.tracking.descriptions import NOTE, described_child, note_of
from pmexp.tracking.parent import CHILD_OF, ParentRun
from pmexp.tracking.record import Point, Record, point_of

if TYPE_CHECKING:
    from mlflow.entities import Run

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_BATCH = 1000  # MLflow's limit of metrics a request


class MlflowRun:
    def __init__(self, parent: ParentRun, record: Record) -> None:
        """A child of the experiment's parent run, which is settled with it."""
        self._experiment, self._parent, self._record = parent.experiment, parent, record
        self._client = parent.experiment.client
        self._offset = 0  # of the journal, behind what was sent
        self.id = ""

    def settle(self, status: Status) -> list[str]:
        """Makes MLflow agree with the folder, and says in words what it had to change: nothing is []."""
        points, offset = self._record.points()
        wanted = dict.fromkeys(points + self._record.final_points(points))  # a set in the journal's order
        started = points[0].time if points else None
        self._parent.settle(self._record.labels, self._record.command(), started)
        run, there, changes = self._chosen(wanted, started)
        self.id = run.info.run_id
        missing = [point for point in wanted if point not in there]
        self._send(missing)
        if missing:
            changes.append(f"{len(missing)} records sent")
        changes += self._settle_words(run) + self._settle_status(run, status) + self._settle_artifacts(run)
        self._parent.settle_status(self._record.ended())
        self._offset = offset
        return changes

    def follow(self) -> None:
        """Sends what the journal got since the last time; after a `settle`."""
        points, offset = self._record.points(self._offset)
        self._send(points)
        self._offset = offset

    def _chosen(self, wanted: dict[Point, None], started: int | None) -> tuple["Run", set[Point], list[str]]:
        """The MLflow run to go on with, its points, and what was changed: any other is deleted."""
        query = f"tags.run_id = '{self._record.run_id}'"
        found = list(self._client.search_runs([self._experiment.id], query))
        by_points = {run.info.run_id: self._points(run) for run in found}
        fit = [run for run in found if self._fits(run, by_points[run.info.run_id], wanted)]
        chosen = max(fit, key=lambda run: len(by_points[run.info.run_id]), default=None)
        changes = []
        for run in found:
            if run is not chosen:
                foreign = len(by_points[run.info.run_id].difference(wanted))
                changes.append(f"deleted {run.info.run_id} with {foreign} foreign records")
                with self._experiment.writing() as client:
                    client.delete_run(run.info.run_id)
        if chosen:
            return chosen, by_points[chosen.info.run_id], changes
        with self._experiment.writing() as client:
            tags = {name: value for name, value in self._tags({}).items() if value is not None}
            created = client.create_run(self._experiment.id, started, tags, self._record.run_name)
        return created, set(), [*changes, "created"]

    def _points(self, run: "Run") -> set[Point]:
        histories = (self._client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
        return {point_of(m.key, m.timestamp, m.step, m.value) for history in histories for m in history}

    def _fits(self, run: "Run", points: set[Point], wanted: dict[Point, None]) -> bool:
        """Nothing is in it that would have to be taken away."""
        return points <= wanted.keys() and run.data.params.items() <= self._record.params.items()

    def _send(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), _BATCH):
            metrics = [
                Metric(each.metric, float("nan") if each.value is None else each.value, each.time, each.step)
                for each in points[start : start + _BATCH]
            ]
            with self._experiment.writing() as client:
                client.log_batch(self.id, metrics=metrics)

    def _tags(self, there: Mapping[str, str]) -> dict[str, str | None]:
        """Those of a run that has those of `there`; None for one that must not be there."""
        tags = self._record.tags()
        known = {name: value for name, value in tags.items() if value is not None}
        return {**tags, CHILD_OF: self._parent.id, NOTE: note_of(there, known, described_child)}

    def _settle_words(self, run: "Run") -> list[str]:
        """Params and tags."""
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
            if status == "RUNNING":
                client.update_run(self.id, status)
            else:
                client.set_terminated(self.id, status, self._record.ended())
        return [f"{run.info.status} -> {status}"]

    def _settle_artifacts(self, run: "Run") -> list[str]:
        if not self._experiment.takes_files(str(run.info.artifact_uri)):
            return []
        files = self._record.artifacts()
        there = {file.path for file in self._client.list_artifacts(self.id)}
        missing = [file for file in files if file.name not in there]
        for file in missing:
            self._client.log_artifact(self.id, str(file))
        return [f"{file.name} attached" for file in missing]
