"""The database is where `runs_dir` says, whatever letters that holds and wherever a command is started."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.request import url2pathname

import pytest

from composed import config
from pmexp.config import from_dict, read_config
from pmexp.tracking import ui
from pmexp.tracking.database import OpenExperiment, mlflow_uri
from pmexp.tracking.repair import repair
from pmexp_analysis.sources.mlflow import load_mlflow
from tracked_runs import TrackedRun, disagreements

LETTERS = ["a b", "a?b=c&d", "a#b", "a%20b", "ünï✓'s", 'say "x";[a]+b', "a:b@c\\~$HOME", "a\tb%"]


@pytest.mark.parametrize("letters", LETTERS)
def test_the_database_is_there_whatever_letters_its_folder_has(
    letters: str, tmp_path: Path, empty_database: Path
) -> None:
    runs_dir = tmp_path / letters
    runs_dir.mkdir()
    shutil.copy(empty_database, runs_dir)
    run = TrackedRun(runs_dir)
    run.steps(3)
    run.record_end("finished")
    assert read_config(run.folder.path / "config.yaml").tracking.uri == f"sqlite:///{runs_dir}/mlflow.db"
    run.settle("FINISHED")
    assert list(repair(runs_dir, "default")) == ["1 run: 1 right"]
    assert disagreements(runs_dir, runs_dir / "mlflow.db") == {}
    with closing(sqlite3.connect(runs_dir / "mlflow.db")) as database:
        places = database.execute(
            "SELECT artifact_uri FROM runs JOIN tags USING (run_uuid) WHERE key = 'run_id'"
        )
        ((place,),) = places.fetchall()
    files = Path(url2pathname(place.removeprefix("file://")))
    assert files.is_relative_to(runs_dir) and (files / "summary.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [letters]
    uri = f"sqlite:///{runs_dir}/mlflow.db"
    assert OpenExperiment(uri, "default").id == "1" and ui._page(uri, "default").startswith(
        "#/experiments/1/"
    )
    (member,) = load_mlflow(uri, "default").members
    assert member.run.run_id == run.folder.path.name


@pytest.mark.parametrize("typed", ["runs_dir=runs", "runs_dir=./x/../runs"])
@pytest.mark.parametrize("uri", [None, "tracking.uri=sqlite:///runs/mlflow.db"])
def test_it_is_the_same_from_every_folder(
    typed: str, uri: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run = config(typed, *([uri] if uri else []))
    assert run.tracking.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_database, tmp_path / "runs")
    tracked = TrackedRun(tmp_path / "runs")
    tracked.steps(2)
    tracked.record_end("finished")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert from_dict(run.to_dict()) == run
    (changed, parent, totals) = repair(Path(os.path.relpath(tmp_path / "runs")), "default")
    assert changed.startswith(tracked.folder.path.name) and totals == "1 run: 1 changed", parent
    assert disagreements(tmp_path / "runs", tmp_path / "runs" / "mlflow.db") == {}
    assert list(elsewhere.iterdir()) == []


def test_a_server_keeps_its_address_and_a_plain_path_its_spelling() -> None:
    for uri in ("http://host:5000", "postgresql://host/db?x=%20", "sqlite:////home/me/runs/mlflow.db"):
        assert mlflow_uri(uri) == uri
