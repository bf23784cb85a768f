"""Repair: whatever MLflow has of the runs, afterwards it has what their folders have."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from mlflow import MlflowClient

from pmexp.errors import UserError
from pmexp.tracking.repair import repair
from tracked_runs import TrackedRun, disagreements, mlflow_parents, mlflow_runs

Database = Callable[[Path], Path]
ENDINGS = {
    "finished": "FINISHED",
    "oom": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "killed": "KILLED",
}


def repaired(runs_dir: Path) -> dict[str, str]:
    """Repairs, asserts that all agrees then and that another repair changes nothing, and returns what was said
    of each run."""
    *lines, totals = repair(runs_dir, "default")
    assert disagreements(runs_dir, runs_dir / "mlflow.db") == {}
    before = (runs_dir / "mlflow.db").read_bytes()
    assert next(repair(runs_dir, "default")).startswith(totals.split(":")[0])
    assert (runs_dir / "mlflow.db").read_bytes() == before
    said = dict(line.split(": ", 1) for line in lines)
    said.pop("parent", None)
    return said


def finished(runs_dir: Path, seed: int) -> TrackedRun:
    run = TrackedRun(runs_dir, seed)
    run.steps(4)
    run.record_end("finished")
    return run


def test_runs_that_mlflow_never_saw_get_their_true_status(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    runs = {}
    for seed, ending in enumerate(ENDINGS):
        runs[ending] = TrackedRun(tmp_path, seed)
        runs[ending].steps(3)
        runs[ending].record_end(ending)
    said = repaired(tmp_path)
    assert dict(mlflow_runs(file).values()) == {
        run.folder.path.name: ENDINGS[name] for name, run in runs.items()
    }
    assert all(run.is_complete() for run in runs.values())
    assert all("created" in line for line in said.values()) and len(said) == len(ENDINGS)
    oom = runs["oom"].folder.path.name
    with closing(sqlite3.connect(file)) as connection:
        tagged = connection.execute(
            "SELECT run_uuid FROM tags WHERE key = 'status' AND value = 'oom'"
        ).fetchall()
        ends = connection.execute(
            "SELECT run_uuid, status, end_time FROM runs"
        ).fetchall()  # the parent's as well
    assert [mlflow_runs(file)[uuid][0] for (uuid,) in tagged] == [oom]
    for uuid, status, end in ends:  # who may go on has no end, and so the parent
        assert (end is None) == (status == "KILLED" or uuid in mlflow_parents(file))


def test_a_run_that_goes_on_is_left_to_its_mirror(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    run = TrackedRun(tmp_path)
    run.steps(3)
    with FileLock(run.folder.path / ".lock"):
        assert list(repair(tmp_path, "default")) == ["1 run: 1 running"]
    run.settle("RUNNING")
    assert repaired(tmp_path) == {run.folder.path.name: "RUNNING -> KILLED"}
    assert [status for _, status in mlflow_runs(file).values()] == ["KILLED"]


def test_a_finished_run_whose_mirror_still_sends_is_left_to_it(tmp_path: Path, database: Database) -> None:
    """Two that send at once would make two runs of it in MLflow."""
    file = database(tmp_path)
    run = finished(tmp_path, 0)
    with run.folder.claimed():
        assert list(repair(tmp_path, "default")) == ["1 run: 1 running"]
    assert mlflow_runs(file) == {}
    assert len(repaired(tmp_path)) == 1


def test_every_kind_of_disagreement(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    right, behind, doubled, twice, tagged, bare = (finished(tmp_path, seed) for seed in range(6))
    ids = {run.folder.path.name: run.settle("FINISHED") for run in (right, doubled, twice, tagged, bare)}
    client = MlflowClient(f"sqlite:///{file}")
    behind.folder.summary.unlink()
    ids[behind.folder.path.name] = behind.settle("RUNNING")
    behind.steps(5)
    behind.record_end("finished")
    client.log_metric(ids[doubled.folder.path.name], "train/loss", 1.0, step=1)  # at another time
    client.log_metric(ids[doubled.folder.path.name], "train/other", 1.0)
    client.create_run("1", tags={"run_id": twice.folder.path.name})
    client.set_tag(ids[tagged.folder.path.name], "variant", "other")
    client.set_tag(ids[tagged.folder.path.name], "status", "oom")
    shutil.rmtree(tmp_path / "mlartifacts" / ids[bare.folder.path.name])
    said = repaired(tmp_path)
    assert said.pop(behind.folder.path.name) == (
        "12 records sent, RUNNING -> FINISHED, summary.json attached"
    )
    assert "with 2 foreign records, created, 10 records sent" in said.pop(doubled.folder.path.name)
    assert "with 0 foreign records" in said.pop(twice.folder.path.name)
    assert said.pop(tagged.folder.path.name) == "2 tags set"
    assert said.pop(bare.folder.path.name) == "config.yaml attached, summary.json attached"
    assert said == {}
    runs = mlflow_runs(file)
    assert set(ids.values()) - set(runs) == {ids[doubled.folder.path.name]}
    assert {status for _, status in runs.values()} == {"FINISHED"}


def test_a_file_that_has_changed_since_is_replaced(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    run = finished(tmp_path, 0)
    uuid = run.settle("FINISHED")
    text = run.folder.summary.read_text()
    run.folder.summary.write_text(text.replace("no memory", "no memorY"))  # as long as what was there
    assert repaired(tmp_path) == {run.folder.path.name: "summary.json replaced"}
    attached = MlflowClient(f"sqlite:///{file}").download_artifacts(uuid, "summary.json")
    assert Path(attached).read_bytes() == run.folder.summary.read_bytes()
    assert repaired(tmp_path) == {}


def test_runs_that_were_moved_with_their_database(tmp_path: Path, database: Database) -> None:
    (tmp_path / "here").mkdir()
    database(tmp_path / "here")
    run = finished(tmp_path / "here", 0)
    run.settle("FINISHED")
    finished(tmp_path / "here", 1)
    shutil.move(tmp_path / "here", tmp_path / "there")
    said = repaired(tmp_path / "there")
    assert said.pop(run.folder.path.name) == "2 tags set"  # folder and description
    assert len(said) == 1
    assert not (tmp_path / "here").exists()


def test_runs_that_were_made_without_a_tracker_get_one(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    run = finished(tmp_path, 0)
    config = run.folder.path / "config.yaml"
    values = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(values | {"tracking": {"kind": "off", "uri": None, "interval_s": 30.0}}))
    assert list(repair(tmp_path, "default")) == ["1 run: 1 untracked"]
    first, _, totals = repair(tmp_path, "default", f"sqlite:///{file}")
    assert "created" in first and totals == "1 run: 1 changed"
    assert list(mlflow_runs(file).values()) == [(run.folder.path.name, "FINISHED")]
    assert list(repair(tmp_path, "default", f"sqlite:///{file}")) == ["1 run: 1 right"]


def test_what_cannot_be_repaired_is_said(tmp_path: Path, database: Database) -> None:
    file = database(tmp_path)
    with pytest.raises(UserError, match="there are no runs; check the experiment's name and runs_dir"):
        list(repair(tmp_path, "defualt"))
    finished(tmp_path, 0)
    old = finished(tmp_path, 1)
    config = old.folder.path / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"no_such_key": 1}))
    first, second, _, totals = repair(tmp_path, "default")
    assert sorted([first, second])[1].startswith(
        f"{old.folder.path.name}: left alone ({config} cannot be used"
    )
    assert totals == "2 runs: 1 changed, 1 unreadable"
    file.write_text("no database")
    with pytest.raises(UserError, match=f"tracking.uri: sqlite:///{file} fails .*file is not a database"):
        list(repair(tmp_path, "default"))
    assert json.loads((tmp_path / "default" / old.folder.path.name / "summary.json").read_text())


def test_a_run_that_goes_on_keeps_its_mlflow_run_unless_its_journal_was_cut(
    tmp_path: Path, database: Database
) -> None:
    file = database(tmp_path)
    first = TrackedRun(tmp_path).mirrored()
    first.steps(3)
    first.end("interrupted")
    (before,) = mlflow_runs(file)
    second = TrackedRun(tmp_path).mirrored()
    assert not second.is_complete()
    assert list(mlflow_runs(file).values()) == [(second.folder.path.name, "RUNNING")]
    assert MlflowClient(f"sqlite:///{file}").get_run(before).info.end_time is None
    second.end("interrupted")
    assert set(mlflow_runs(file)) == {before}
    lines = second.folder.journal.read_text().splitlines(keepends=True)
    second.folder.journal.write_text("".join(lines[:4]))
    third = TrackedRun(tmp_path).mirrored()
    third.steps(3)
    third.end()
    assert third.is_complete()
    assert before not in mlflow_runs(file)
    assert disagreements(tmp_path, file) == {}


@pytest.mark.parametrize("ending", ["failed", "interrupted", "killed"])
def test_a_run_that_goes_on_has_no_end_while_it_runs(ending: str, tmp_path: Path, database: Database) -> None:
    """Whatever status it got when it ended before; what a person wrote about it stays."""
    client = MlflowClient(f"sqlite:///{database(tmp_path)}")
    first = TrackedRun(tmp_path)
    first.steps(3)
    first.record_end(ending)
    list(repair(tmp_path, "default"))
    (before,) = mlflow_runs(tmp_path / "mlflow.db")
    client.set_tag(before, "mlflow.note.content", "look here")
    second = TrackedRun(tmp_path).mirrored()
    ((uuid, _),) = mlflow_runs(tmp_path / "mlflow.db").items()
    running = client.get_run(uuid)
    assert (running.info.status, running.info.end_time) == ("RUNNING", None)
    assert running.data.tags["mlflow.note.content"] == "look here"
    assert disagreements(tmp_path, tmp_path / "mlflow.db") == {}
    second.end()
    ended = client.get_run(uuid).info
    assert ended.status == "FINISHED" and ended.end_time >= ended.start_time
