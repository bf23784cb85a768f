"""What tells runs apart, in MLflow: their names and tags, their parent's words, and the columns of the page."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import tracked_runs
from pmexp.command.compose import compose
from pmexp.run_folder.plan import add_to_plan
from pmexp.tracking.repair import repair
from tracked_runs import TrackedRun, disagreements, mlflow_parents

Database = Callable[[Path], Path]
Begin = Callable[..., TrackedRun]
VIEW, NAME = "mlflow.sharedViewState.pmexp", "mlflow.runName"


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Begins a run of some overrides."""

    def begun(*overrides: str, seed: int = 0) -> TrackedRun:
        monkeypatch.setattr(tracked_runs, "_DEFAULT", compose(list(overrides)))
        run = TrackedRun(tmp_path, seed)
        run.steps(1)
        return run

    return begun


@pytest.fixture
def client(tmp_path: Path, database: Database) -> MlflowClient:
    return MlflowClient(f"sqlite:///{database(tmp_path)}")


def finished(run: TrackedRun) -> str:
    """Ends the run and returns its id in MLflow."""
    return run.settle(run.record_end("finished"))


def parent_of(client: MlflowClient, folder: Path) -> Run:
    (run_id,) = mlflow_parents(folder / "mlflow.db")
    return client.get_run(run_id)


def view_of(client: MlflowClient) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.loads(client.get_experiment("1").tags[VIEW])["state"])
    return state


def test_each_run_of_a_sweep_has_a_name_and_the_page_a_column_of_its_own(
    tmp_path: Path, client: MlflowClient, begin: Begin
) -> None:
    runs = {
        (p, lr): begin(f"variant.p={p}", f"train.lr={lr}")
        for p, lr in itertools.product(("0.1", "0.3"), ("0.001", "2e-05"))
    }
    planned = [(run.config.run_id, run.config.labels, run.config.settings) for run in runs.values()]
    add_to_plan(tmp_path / "default", planned)
    names = {}
    for (p, lr), run in runs.items():
        told = client.get_run(finished(run))
        assert told.data.tags["differs"] == f"variant.p={p} train.lr={lr}"
        assert f"seed 0, `variant.p={p} train.lr={lr}`" in told.data.tags["mlflow.note.content"]
        names[told.info.run_name] = run
    assert list(names) == [f"baseline-s0 variant.p={p} train.lr={lr}" for p, lr in runs]
    parent = parent_of(client, tmp_path)
    assert parent.data.tags["differs"] == "variant.p=0.1,0.3 train.lr=0.001,2e-05"
    assert "Settings that differ: `variant.p=0.1,0.3" in parent.data.tags["mlflow.note.content"]
    view = view_of(client)
    assert view["selectedColumns"][:4] == [
        "tags.`variant`",
        "tags.`seed`",
        "params.`variant.p`",
        "params.`train.lr`",
    ]
    assert view["orderByKey"] == "tags.`variant`" and view["columnOrder"][1:] == view["selectedColumns"]
    assert list(repair(tmp_path, "default")) == ["4 runs: 4 right"]
    assert disagreements(tmp_path, tmp_path / "mlflow.db") == {}


def test_runs_that_were_typed_one_by_one_get_their_words_at_last_by_repair(
    tmp_path: Path, client: MlflowClient, begin: Begin
) -> None:
    first = finished(begin("train.lr=0.001"))
    assert (
        client.get_run(first).info.run_name == "baseline-s0"
        and "differs" not in client.get_run(first).data.tags
    )
    second = finished(begin("train.lr=0.01"))
    assert client.get_run(second).info.run_name == "baseline-s0 train.lr=0.01"
    third = finished(begin("train.lr=0.01", seed=1))
    client.set_tag(third, NAME, "my own name")
    *changes, totals = repair(tmp_path, "default")
    assert totals == "3 runs: 1 changed, 2 right" and changes[0].endswith("3 tags set")
    names = [client.get_run(run_id).info.run_name for run_id in (first, second, third)]
    assert names == ["baseline-s0 train.lr=0.001", "baseline-s0 train.lr=0.01", "my own name"]
    assert client.get_run(first).info.status == "FINISHED" and client.get_run(first).info.end_time
    assert list(repair(tmp_path, "default")) == ["3 runs: 3 right"]


def test_a_name_of_an_earlier_version_is_replaced(tmp_path: Path, client: MlflowClient, begin: Begin) -> None:
    run = finished(begin())
    client.set_tag(run, NAME, "baseline-plain-vit-digits-s0")
    assert list(repair(tmp_path, "default"))[-1] == "1 run: 1 changed"
    assert client.get_run(run).info.run_name == "baseline-s0"


def test_a_view_follows_the_runs_until_a_person_has_one(
    tmp_path: Path, client: MlflowClient, begin: Begin
) -> None:
    finished(begin("train.lr=0.001"))
    assert "params.`train.lr`" not in view_of(client)["selectedColumns"]
    finished(begin("train.lr=0.01"))
    assert "params.`train.lr`" in view_of(client)["selectedColumns"]
    client.set_experiment_tag("1", VIEW, own := json.dumps({"name": "pmexp", "updatedAt": 9, "state": "{}"}))
    finished(begin("train.lr=0.01", "system=bf16"))
    assert client.get_experiment("1").tags[VIEW] == own
    client.delete_experiment_tag("1", VIEW)
    finished(begin("train.lr=0.1"))
    assert VIEW not in client.get_experiment("1").tags


def test_a_damaged_plan_costs_the_words_alone(tmp_path: Path, client: MlflowClient, begin: Begin) -> None:
    finished(begin("train.lr=0.001"))
    run = begin("train.lr=0.01")
    (tmp_path / "default" / "plan.json").write_text("{")
    assert client.get_run(finished(run)).info.run_name == "baseline-s0"
    assert disagreements(tmp_path, tmp_path / "mlflow.db") == {}
