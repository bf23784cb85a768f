"""Keeps the parent run of an experiment: MLflow lists the pmexp runs below it, and their report lies in it.

It is known by its tag `kind`; of several the oldest stays, and gets the children of the others. It has no tag
`run_id`, by which pmexp runs are known. The analysis uses it too: it imports no configuration.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pmexp.errors import UserError
from pmexp.run_folder.differences import Differing, swept
from pmexp.tracking.database import OpenExperiment
from pmexp.tracking.descriptions import DIFFERS, NOTE, described_parent, note_of
from pmexp.tracking.view import VIEW_TAG, is_ours, view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHILD_OF = "mlflow.parentRunId"  # MLflow's name for the tag by which a run is a child
KIND = {"kind": "sweep"}
# The parent's tag of such a name lists the values of all its children.
_LABELS = ("task", "model", "dataset", "variant", "system", "seed")
_MOST_WORDS = 200  # a label keeps so many, as MLflow cuts a tag at 8000 characters
_LONGEST_TAG = 5000  # characters
_PAGE = 1000


class ParentRun:
    """Finds or makes the parent run of an experiment, and keeps it in agreement with its children."""

    def __init__(self, experiment: OpenExperiment) -> None:
        self.experiment, self._client = experiment, experiment.client
        self.id = ""  # since the first `settle`
        self.changes: list[str] = []  # in words

    def settle(
        self,
        labels: Mapping[str, str] | None = None,
        command: str | None = None,
        started: int | None = None,
        apart: Mapping[str, Differing] | None = None,
    ) -> None:
        """Finds the parent or makes it, and adds what a child knows: its labels, when it started and by what,
        and what tells the experiment's runs apart.

        `started`: in milliseconds since 1970. The first command to be known stays.
        """
        known = dict(labels or {})
        if apart and (settings := swept(apart.values())):
            known[DIFFERS] = settings[:_LONGEST_TAG]
        parents, is_first, is_new = self._parents(), not self.id, False
        if len(parents) != 1 or self._lacking(parents[0], known, command):
            with self.experiment.writing() as client:  # what others did meanwhile is seen in here
                parents = self._parents()
                if not parents:
                    client.create_run(self.experiment.id, started, KIND, self.experiment.name)
                    self.changes.append("created")
                    is_new = True
                    parents = self._parents()
                for other in parents[1:]:
                    for child in self._search(f"tags.`{CHILD_OF}` = '{other.info.run_id}'"):
                        client.set_tag(child.info.run_id, CHILD_OF, parents[0].info.run_id)
                    client.delete_run(other.info.run_id)
                    self.changes.append(f"deleted {other.info.run_id}, a second one")
                self._set(client, parents[0].info.run_id, self._lacking(parents[0], known, command))
        self.id = parents[0].info.run_id
        if is_new or (is_first and apart is not None):  # one look a run: its end has little time
            self._settle_view((apart or {}).values(), is_new)

    def settle_status(self) -> None:
        """Sets RUNNING while a child is. FINISHED says that none is any more, whatever became of them; it has
        no end time, which MLflow could not take back when the sweep is resumed.

        After a `settle`, and after the child's own status.
        """
        # The status is read after the child's own was set: an earlier look may miss what others did since.
        if self._client.get_run(self.id).info.status == self._due_status():
            return
        with self.experiment.writing() as client:
            status = self._due_status()
            client.update_run(self.id, status)
        self.changes.append(f"now {status}")

    def _settle_view(self, differing: Collection[Differing], is_new: bool) -> None:
        """Gives the page the columns of what tells runs apart. A view that a person deleted or saved anew
        stays so."""
        present = self._client.get_experiment(self.experiment.id).tags.get(VIEW_TAG)
        wanted = view(differing)
        if present != wanted and (is_ours(present) if present else is_new):
            with self.experiment.writing() as client:
                client.set_experiment_tag(self.experiment.id, VIEW_TAG, wanted)

    def adopt(self) -> None:
        """Makes every pmexp run of the experiment a child; after a `settle`."""
        for run in self._search("tags.run_id != ''"):
            tags = run.data.tags
            if tags.get(CHILD_OF) != self.id:
                with self.experiment.writing() as client:
                    client.set_tag(run.info.run_id, CHILD_OF, self.id)
                self.settle({name: tags[name] for name in _LABELS if name in tags})

    def attach(self, file: Path, folder: str) -> None:
        """Puts a file into a folder of the parent's artifacts, in place of one of its name.

        Raises UserError where the runs were moved.
        """
        place = str(self._client.get_run(self.id).info.artifact_uri)
        if not self.experiment.takes_files(place):
            raise UserError(f"files of this experiment belong to {place}, and its runs were moved from there")
        self._client.log_artifact(self.id, str(file), folder)

    def tag(self, tags: Mapping[str, str]) -> None:
        with self.experiment.writing() as client:
            self._set(client, self.id, tags)

    def _parents(self) -> list["Run"]:
        """Returns all parent runs, the oldest first, in the same order for all that look."""
        parents = self._search(" and ".join(f"tags.{key} = '{value}'" for key, value in KIND.items()))
        return sorted(parents, key=lambda run: (run.info.start_time or 0, run.info.run_id))

    def _search(self, query: str) -> Iterator["Run"]:
        token = None
        while True:
            page = self._client.search_runs([self.experiment.id], query, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _lacking(self, parent: "Run", labels: Mapping[str, str], command: str | None) -> dict[str, str]:
        """The tags that the parent lacks or has with another value."""
        present = parent.data.tags
        wanted = present | {"name": self.experiment.name}
        for name in _LABELS & labels.keys():
            wanted[name] = _with(wanted.get(name, ""), labels[name])
        wanted |= {DIFFERS: labels[DIFFERS]} if DIFFERS in labels else {}
        if command:
            wanted.setdefault("command", command)
        wanted[NOTE] = note_of(present, wanted, described_parent)
        return {name: value for name, value in wanted.items() if present.get(name) != value}

    def _set(self, client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        if tags:
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _due_status(self) -> str:
        query = f"attributes.status = 'RUNNING' and tags.`{CHILD_OF}` = '{self.id}'"
        return (
            "RUNNING" if self._client.search_runs([self.experiment.id], query, max_results=1) else "FINISHED"
        )


def _with(words: str, word: str) -> str:
    """The comma-separated `words` with one more, each once and in order, numbers by their size."""
    distinct = {*filter(None, words.split(", ")), word}
    in_order = sorted(distinct, key=lambda word: (int(word) if word.isdigit() else -1, word))
    return ", ".join(in_order[:_MOST_WORDS])
