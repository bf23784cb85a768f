"""Reads with each tracker's own means, or pandas, what it has of a run, in one form for all of them."""

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from pmexp.tracking.wandb_files import read_wandb
from tracked_runs import TrackedRun

Value = tuple[str, int | None, float | None]  # metric, step (None: a final value), value (None: not a number)


class Content(NamedTuple):
    values: Counter[Value]
    status: str | None  # in the tracker's words; None where it has none


def wanted(run: TrackedRun, tracker: str) -> Counter[Value]:
    """What a tracker should have of a run, by the run's own files."""
    lines = [json.loads(line) for line in run.folder.journal.read_text().splitlines()]
    values: list[Value] = [(line["metric"], line["step"], line["value"]) for line in lines]
    if run.folder.summary.is_file():
        metrics = json.loads(run.folder.summary.read_text())["metrics"]
        values += [(f"final/{name}", None, value) for name, value in metrics.items()]
    return Counter((name, step, _rounded(value, tracker)) for name, step, value in values)


def _rounded(value: float | None, tracker: str) -> float | None:
    return float(np.float32(value)) if tracker == "tensorboard" and value is not None else value


def _value(metric: str, step: int, value: float) -> Value:
    return metric, None if metric.startswith("final/") else step, None if math.isnan(value) else value


def _of_mlflow(run: TrackedRun) -> Content:
    query = "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE lifecycle_stage = 'active' AND key = 'run_id' AND tags.value = ?"
    with closing(sqlite3.connect(Path(run.config.runs_dir) / "mlflow.db")) as connection:
        ((uuid,),) = connection.execute(query, (run.folder.path.name,)).fetchall()
        rows = connection.execute(
            "SELECT key, step, CASE is_nan WHEN 1 THEN 'nan' ELSE value END FROM metrics WHERE run_uuid = ?",
            (uuid,),
        )
        values = Counter(_value(key, step, float(value)) for key, step, value in rows)
        ((status,),) = connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (uuid,)).fetchall()
    return Content(values, status)


def _of_wandb(run: TrackedRun) -> Content:
    (file,) = run.folder.path.parent.glob(f"wandb/offline-run-*-{run.folder.path.name}/*.wandb")
    content = read_wandb(file, "final/")
    values = Counter(
        (name, row["step"], value) for row in content.rows for name, value in row.items() if name != "step"
    )
    values.update((name, None, value) for name, value in content.summary.items())
    words = {None: "RUNNING", 0: "FINISHED", 1: "FAILED", 255: "KILLED"}
    assert content.name.startswith("baseline-") and content.name.endswith(f"s{run.config.seed}")
    assert content.config["train"]["lr"] == run.config.train.lr
    assert content.config["pmexp"]["variant"] == "baseline"
    return Content(values, words[content.exit_code])


def _of_tensorboard(run: TrackedRun) -> Content:
    events = EventAccumulator(str(run.folder.path), {"scalars": 0})
    events.Reload()
    values = Counter(
        _value(tag, event.step, event.value)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    )
    told = events.PluginTagToContent(metadata.PLUGIN_NAME) if values else {}
    if values:
        start = metadata.parse_session_start_info_plugin_data(told[metadata.SESSION_START_INFO_TAG])
        assert start.hparams["train.lr"].number_value == run.config.train.lr
        assert start.hparams["variant.name"].string_value == "baseline"
    if metadata.SESSION_END_INFO_TAG not in told:
        return Content(values, None)
    end = metadata.parse_session_end_info_plugin_data(told[metadata.SESSION_END_INFO_TAG])
    return Content(values, "FINISHED" if end.status == api_pb2.STATUS_SUCCESS else "FAILED")


def _of_csv(run: TrackedRun) -> Content:
    table = pd.read_csv(run.folder.path / "metrics.csv")
    assert set(table.variant) <= {"baseline"} and set(table.run_id) <= {run.folder.path.name}
    lines = [json.loads(line) for line in run.folder.journal.read_text().splitlines()]
    logged = {(line["metric"], line["step"], line["time"]) for line in lines}
    shown = set(zip(table.metric, table.step, table.time, strict=True))
    assert {place for place in shown if not place[0].startswith("final/")} <= logged
    rows = zip(table.metric, table.step, table.value, strict=True)
    return Content(Counter(_value(*row) for row in rows), None)


READERS: dict[str, Callable[[TrackedRun], Content]] = {
    "mlflow": _of_mlflow,
    "wandb": _of_wandb,
    "tensorboard": _of_tensorboard,
    "csv": _of_csv,
}


def assert_agrees(run: TrackedRun, tracker: str, status: str | None = None) -> None:
    """Asserts that the tracker has what the run's folder has, each value once. `status`: where it has one."""
    content = READERS[tracker](run)
    assert content.values == wanted(run, tracker)
    if status and content.status:
        assert content.status == status
