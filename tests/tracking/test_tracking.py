"""MLflow mirrors the journal: a real sqlite database, true status, no step twice, and no harm when it fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from pmexp.tracking import mirror, mlflow_run
from pmexp_analysis import report
from small_runs import TINY_VIT, Runs

SHORT = [*TINY_VIT, "train.max_steps=4", "train.log_every=1"]


@pytest.fixture(autouse=True)
def _a_database(runs: Runs, database: Callable[[Path], Path]) -> None:
    database(runs.folder)


def mlflow_runs(runs: Runs, name: str = "default") -> tuple[MlflowClient, list[MlflowRun]]:
    client = MlflowClient(f"sqlite:///{runs.folder}/mlflow.db")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id], "tags.run_id != ''"))


def test_the_mirror_of_a_finished_run(runs: Runs) -> None:
    assert runs.train(*SHORT, "variant=pm-drop", "seed=2")[0] == 0
    client, (run,) = mlflow_runs(runs)
    (folder,) = runs.run_folders()
    summary = json.loads((folder / "summary.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "pm-drop-s2"
    wanted = {
        "run_id": folder.name,
        "variant": "pm-drop",
        "system": "plain",
        "seed": "2",
        "dataset": "digits",
    }
    assert run.data.tags.items() >= wanted.items()
    assert run.data.params["train.max_steps"] == "4" and run.data.params["variant.bits"] == "1"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == runs.curve("pm-drop-s2", "train/loss")
    assert {
        k.removeprefix("final/"): v for k, v in run.data.metrics.items() if k.startswith("final/")
    } == summary["metrics"]
    saved = summary["metrics"]["memory/saved_bytes"]
    assert run.data.metrics["MiB/saved"] == pytest.approx(saved / 2**20, abs=0.0005)
    assert "MiB/tensors" in run.data.metrics
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {"config.yaml", "summary.json"}


def test_a_failed_run_says_failed_and_its_second_try_replaces_it(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmexp.training.evaluating import Evaluator

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.train(*SHORT)
    assert [run.info.status for run in mlflow_runs(runs)[1]] == ["FAILED"]
    assert runs.train(*SHORT)[0] == 0
    assert [run.info.status for run in mlflow_runs(runs)[1]] == ["FINISHED"]


def test_a_tracker_that_cannot_be_reached_costs_a_warning(
    runs: Runs, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_SHORT_END_S", 0.5)
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    assert runs.train(*SHORT, f"tracking.uri=sqlite:///{tmp_path}/blocked/mlflow.db")[0] == 0
    assert "pmexp runs repair default" in caplog.text
    assert runs.summaries()["baseline-s0"]["status"] == "finished"


def test_more_records_than_a_request_may_hold(runs: Runs) -> None:
    monkey = pytest.MonkeyPatch()
    monkey.setattr(mlflow_run, "_BATCH", 3)
    assert runs.train(*SHORT)[0] == 0
    monkey.undo()
    client, (run,) = mlflow_runs(runs)
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 4


def test_the_report_is_attached_to_the_parent_of_the_runs_it_compares(runs: Runs, tmp_path: Path) -> None:
    for seed in (0, 1):
        assert runs.train(*SHORT, f"seed={seed}")[0] == 0
    arguments = ["default", "--runs-dir", str(runs.folder), "--out", str(tmp_path / "reports")]
    assert report.main(arguments) == 0
    client, children = mlflow_runs(runs)
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in children}
    names = {file.path for file in client.list_artifacts(parent, "report")}
    assert names >= {"report/index.html", "report/report.json"}
    assert not any(client.list_artifacts(run.info.run_id, "report") for run in children)


def test_a_tracker_that_is_gone_costs_the_attachment_alone(runs: Runs, tmp_path: Path) -> None:
    assert runs.train(*SHORT)[0] == 0
    (runs.folder / "mlflow.db").unlink()
    assert report.main(["default", "--runs-dir", str(runs.folder), "--out", str(tmp_path)]) == 0
    assert (
        f"not attached in MLflow at sqlite:///{runs.folder}/mlflow.db: there is no database"
        in runs.capture.readouterr().out
    )
    assert not (runs.folder / "mlflow.db").exists()
