"""An MLflow database gives the report that the journals give."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from evidence_runs import MACHINE, pairs, run
from pmexp_analysis.report import main
from pmexp_analysis.sources.folders import load_runs
from pmexp_analysis.sources.mlflow import load_mlflow
from run_folders import Runs


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("mlflow") / "fresh.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, fresh: Path) -> str:
    return f"sqlite:///{shutil.copy(fresh, tmp_path / 'tracking.db')}"


def uri_file(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


def create_demo(client: MlflowClient, uri: str) -> str:
    """Experiment "demo" with its artifacts beside the database, not in the working directory."""
    artifacts = uri_file(uri).with_name("artifacts")
    return str(client.create_experiment("demo", artifact_location=artifacts.as_uri()))


def mirror(runs: Runs, uri: str) -> MlflowClient:
    """Write every run folder of `runs` into a fresh database, as the tracker does."""
    client = MlflowClient(tracking_uri=uri)
    experiment = create_demo(client, uri)
    for folder in sorted(path for path in runs.folder.iterdir() if path.is_dir()):
        summary_path = folder / "summary.json"
        if not summary_path.exists():
            variant, seed = folder.name.rsplit("-", 1)
            labels: dict[str, Any] = {
                "task": "net/digits",
                "variant": variant,
                "system": "plain",
                "seed": seed,
            }
            start(client, experiment, folder.name, labels, {}, "FAILED")
            continue
        summary = json.loads(summary_path.read_text())
        run = start(client, experiment, folder.name, summary["labels"], summary["metrics"], "FINISHED")
        client.log_artifact(run, str(summary_path))
        for text in (folder / "journal.jsonl").read_text().splitlines():
            record = json.loads(text)
            client.log_metric(run, record["metric"], record["value"], step=record["step"])
    return client


def start(
    client: MlflowClient,
    experiment: str,
    run_id: str,
    labels: dict[str, Any],
    finals: dict[str, Any],
    status: str,
) -> str:
    tags = {"run_id": run_id, **{name: str(value) for name, value in labels.items()}}
    run = str(client.create_run(experiment, tags=tags).info.run_id)
    for metric, value in finals.items():
        client.log_metric(run, f"final/{metric}", float("nan") if value is None else value)
    if status != "RUNNING":
        client.set_terminated(run, status)
    return run


def reports(runs: Runs, uri: str) -> tuple[dict[str, Any], dict[str, Any]]:
    both = []
    for options in ([], ["--tracking-uri", uri]):
        out = runs.root.parent / f"out{len(options)}"
        assert (
            main(["demo", "--runs-dir", str(runs.root), "--out", str(out), "--figures", "0", *options]) == 0
        )
        both.append(json.loads((out / "demo" / "report.json").read_text()))
    return both[0], both[1]


def test_both_sources_give_the_same_report(demo: Runs, uri: str) -> None:
    demo.finished("baseline", 9, {"train/loss": None})
    mirror(demo, uri)
    journals, mlflow = reports(demo, uri)
    assert mlflow["rows"] == journals["rows"]
    assert mlflow["comparisons"] == journals["comparisons"]
    assert (journals["source"], mlflow["source"]) == (str(demo.folder), uri)
    place = ("variant", "seed", "run_id")
    assert [[run[key] for key in place] for run in mlflow["missing"]] == [
        [run[key] for key in place] for run in journals["missing"]
    ]
    whys = {run["seed"]: run["why"] for run in mlflow["missing"] if run["variant"] == "packed"}
    assert whys == {3: "FAILED in MLflow", 9: "no run of this seed, there is one of baseline"}


def test_every_run_s_environment_weights_and_protocol_are_read(runs: Runs, uri: str) -> None:
    """One pair of another processor in the middle, and a criterion that a later run changed."""
    for seed in range(4):
        weights = {"outcome": {"weights_sha256": f"{seed}"}, "losses": [5.0, 1.0 + seed]}
        run(runs, "baseline", seed, **weights)
        other = {"environment": MACHINE | {"cpu": "Xeon"}} if seed == 1 else {}
        run(runs, "pm-drop", seed, **weights | other)
    changed = runs.folder / "net-digits-pm-drop-2" / "summary.json"
    changed.write_text(changed.read_text().replace('"threshold": 0.02', '"threshold": 0.5'))
    mirror(runs, uri)
    journals, mlflow = reports(runs, uri)
    for key in ("warnings", "criteria", "rows", "comparisons", "one_training", "environment", "protocol"):
        assert mlflow[key] == journals[key], key
    assert any("ran under different conditions in seed 1" in line for line in mlflow["warnings"])
    assert "under another protocol (speed differs)" in str(mlflow["protocol"])


def test_environments_that_are_out_of_reach_are_said(runs: Runs, uri: str) -> None:
    pairs(runs)
    mirror(runs, uri)
    for folder in (uri_file(uri).with_name("artifacts")).iterdir():
        shutil.rmtree(folder)
    warnings = reports(runs, uri)[1]["warnings"]
    assert [line for line in warnings if line.startswith("The environment of 6 runs of 6 is not recorded")]


def test_both_sources_give_the_same_curves(demo: Runs, uri: str) -> None:
    mirror(demo, uri)
    key = ["run_id", "metric", "step"]
    curves, expected = load_mlflow(uri, "demo").curves, load_runs(demo.root, "demo").curves
    columns = list(expected.columns)
    assert (
        curves.sort_values(key)[columns].values.tolist() == expected.sort_values(key)[columns].values.tolist()
    )
    assert len(curves) == 18


def test_a_run_started_again_counts_once_and_infinity_is_not_finite(uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    experiment = create_demo(client, uri)
    labels = {"task": "net/digits", "variant": "packed", "system": "plain", "seed": 0}
    finals = {"test/loss": float("inf"), "test/accuracy": 0.5}
    start(client, experiment, "again", labels, {}, "KILLED")
    start(client, experiment, "again", labels, finals, "FINISHED")
    start(client, experiment, "again", labels, {}, "RUNNING")
    start(client, experiment, "later", {**labels, "seed": 1}, {}, "RUNNING")
    client.create_run(experiment)  # somebody else's run, without our tags
    loaded = load_mlflow(uri, "demo")
    assert [member.run.run_id for member in loaded.finished] == ["again"]
    assert {metric: values.finite("packed") for metric, values in loaded.values[0].metrics.items()} == {
        "test/loss": {},
        "test/accuracy": {0: 0.5},
    }
    assert [(run.run_id, run.why) for run in loaded.missing] == [
        ("again", "finished, but not finite: test/loss"),
        ("later", "RUNNING in MLflow: still running, or killed"),
    ]


@pytest.mark.parametrize(
    "why", ["no database", "not a database", "no experiment", "no finished run", "bad scheme", "no server"]
)
def test_a_source_that_cannot_be_used_is_one_line(
    why: str, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "demo"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if why in ("no experiment", "no finished run"):
        MlflowClient(tracking_uri=uri).create_experiment("demo")
        name = "demo" if why == "no finished run" else "demmo"
    elif why == "no database":
        (tmp_path / "tracking.db").unlink()
    elif why == "not a database":
        (tmp_path / "tracking.db").write_text("not a database " * 100)
    elif why == "bad scheme":
        uri = "nowhere://x"
    elif why == "no server":
        uri = "http://127.0.0.1:9"
    capsys.readouterr()
    assert main([name, "--out", str(tmp_path / "out"), "--tracking-uri", uri]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert (f"'{name}'" if why in ("no experiment", "no finished run") else uri) in printed.err
    if why == "no database":
        assert not (tmp_path / "tracking.db").exists()
