"""The parent run of an experiment: one, whoever comes first, with what its children know."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pmexp.tracking.database import OpenExperiment
from pmexp.tracking.parent import CHILD_OF, ParentRun
from pmexp.tracking.repair import repair
from pmexp_analysis.pages.attach import attach
from tracked_runs import TrackedRun, disagreements, in_process, mlflow_parents, mlflow_runs

Database = Callable[[Path], Path]
NOTE = "mlflow.note.content"


def finished(runs_dir: Path, seed: int) -> TrackedRun:
    run = TrackedRun(runs_dir, seed)
    run.steps(1)
    run.record_end("finished")
    run.settle("FINISHED")
    return run


def the_parent(file: Path) -> Run:
    (run_id,) = mlflow_parents(file)
    return MlflowClient(f"sqlite:///{file}").get_run(run_id)


def test_the_parent_knows_what_its_children_are(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    for seed in (10, 9, 2):
        finished(tmp_path, seed)
    parent = the_parent(file)
    assert "run_id" not in parent.data.tags
    wanted = {
        "kind": "sweep",
        "name": "default",
        "variant": "baseline",
        "seed": "2, 9, 10",
        "system": "plain",
    }
    assert parent.data.tags.items() >= wanted.items()
    assert (parent.info.run_name, parent.info.status) == ("default", "FINISHED")
    assert "- Compared: seed 2, 9, 10\n" in parent.data.tags[NOTE]


def test_it_runs_while_a_child_does(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    first, second = TrackedRun(tmp_path, 0), TrackedRun(tmp_path, 1)
    first.settle("RUNNING")
    second.settle("RUNNING")
    first.settle(first.record_end("failed"))
    assert the_parent(file).info.status == "RUNNING"
    second.settle(second.record_end("interrupted"))
    assert the_parent(file).info.status == "FINISHED"
    assert the_parent(file).info.end_time is None
    second.settle("RUNNING")
    assert the_parent(file).info.status == "RUNNING" and the_parent(file).info.end_time is None
    assert list(repair(tmp_path, "default"))[-2:] == ["parent: now FINISHED", "2 runs: 1 changed, 1 right"]


def test_processes_that_begin_at_once_make_one(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    processes = [in_process(lambda seed=seed: finished(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert disagreements(tmp_path, file) == {}
    assert the_parent(file).data.tags["seed"] == "0, 1, 2, 3"


@pytest.mark.parametrize("what", ["missing", "deleted", "doubled", "without its child"])
def test_repair_mends(what: str, tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    client = MlflowClient(f"sqlite:///{file}")
    child = finished(tmp_path, 0).settle("FINISHED")
    before = the_parent(file)
    if what == "doubled":
        other = client.create_run("1", start_time=before.info.start_time + 1, tags={"kind": "sweep"})
        without_folder = client.create_run("1", tags={CHILD_OF: other.info.run_id}).info.run_id
        client.set_tag(child, CHILD_OF, other.info.run_id)
        for run_id in (without_folder, other.info.run_id):
            client.set_terminated(run_id)
    elif what != "missing":
        if what == "deleted":
            client.delete_run(before.info.run_id)
        else:
            client.delete_tag(child, CHILD_OF)
    else:  # as earlier versions left it
        client.delete_run(before.info.run_id)
        for name in (CHILD_OF, NOTE):
            client.delete_tag(child, name)
    assert disagreements(tmp_path, file)
    said = list(repair(tmp_path, "default"))
    assert ("parent: created, now FINISHED" in said) == (what in ("missing", "deleted"))
    assert disagreements(tmp_path, file) == {}
    assert (the_parent(file).info.run_id == before.info.run_id) == (what in ("doubled", "without its child"))
    assert list(repair(tmp_path, "default")) == ["1 run: 1 right"]
    if what == "doubled":
        assert client.get_run(without_folder).data.tags[CHILD_OF] == before.info.run_id


def test_two_processes_on_a_server_settle_on_the_oldest(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server has no lock: another process makes one between the look and the making."""
    file = database(tmp_path)
    experiment = OpenExperiment(f"sqlite:///{file}", "default", tmp_path)
    client, create = experiment.client, experiment.client.create_run
    made = []

    def create_two(experiment_id: str, start_time: int, *rest: object) -> object:
        made.append(create(experiment_id, start_time - 1, *rest))
        return create(experiment_id, start_time, *rest)

    monkeypatch.setattr(client, "create_run", create_two)
    parent = ParentRun(experiment)
    parent.settle({"seed": "0"}, started=1000)
    assert list(mlflow_parents(file)) == [parent.id] == [made[0].info.run_id]


def test_a_description_that_a_person_wrote_stays(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    client = MlflowClient(f"sqlite:///{file}")
    child = finished(tmp_path, 0).settle("FINISHED")
    assert "seed 0" in client.get_run(child).data.tags[NOTE]
    for run_id in (child, the_parent(file).info.run_id):
        client.set_tag(run_id, NOTE, "my own words")
    finished(tmp_path, 1)
    assert list(repair(tmp_path, "default")) == ["2 runs: 2 right"]
    assert {client.get_run(run_id).data.tags[NOTE] for run_id in (child, *mlflow_parents(file))} == {
        "my own words"
    }


def test_the_report_and_its_words_go_to_a_parent_that_is_made(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path / "runs")
    client = MlflowClient(f"sqlite:///{file}")
    child = finished(tmp_path / "runs", 0).settle("FINISHED")
    client.delete_run(the_parent(file).info.run_id)
    for name in ("report/index.html", "report/figures/x.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files = [tmp_path / "report" / name for name in ("index.html", "figures/x.pdf")]
    uri = f"sqlite:///{file}"
    assert attach("default", [uri], files, {"verdict": "equivalent"}) == []
    assert disagreements(tmp_path / "runs", file) == {}
    parent = the_parent(file)
    assert client.get_run(child).data.tags[CHILD_OF] == parent.info.run_id
    assert parent.data.tags["verdict"] == "equivalent" and parent.data.tags["seed"] == "0"
    assert [each.path for each in client.list_artifacts(parent.info.run_id, "report/figures")] == [
        "report/figures/x.pdf"
    ]
    (tmp_path / "runs").rename(tmp_path / "moved")
    (complaint,) = attach("default", [f"sqlite:///{tmp_path}/moved/mlflow.db"], files)
    assert "its runs were moved from there" in complaint and not (tmp_path / "runs").exists()
    (complaint,) = attach("defualt", [f"sqlite:///{tmp_path}/moved/mlflow.db"], files)
    assert complaint.endswith("there are: Default, default")
    assert len(mlflow_runs(tmp_path / "moved" / "mlflow.db")) == 1
