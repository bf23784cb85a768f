"""tracking.json: what trackers have of a run, and why one lacks a part."""

import json
from pathlib import Path

from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.mirrored import lacking, mark_complete, mark_lacking, settled, where


def test_each_tracker_has_its_own_mark(tmp_path: Path) -> None:
    file = RunFolder(tmp_path).mirrored
    assert settled(file) == set() and lacking(file) == {} and where(file, "csv") == {}
    mark_complete(file, "csv", {"file": "metrics.csv"})
    mark_lacking(file, "mlflow", "refused: https://me:hunter2@host")
    assert settled(file) == {"csv", "mlflow"} and where(file, "mlflow") == {}
    assert where(file, "csv") == {"file": "metrics.csv"}
    assert list(lacking(file)) == ["mlflow"] and "hunter2" not in file.read_text()
    mark_complete(file, "mlflow", {"uri": "http://host", "mlflow_run_id": "1"})
    assert lacking(file) == {} and RunFolder(tmp_path).mlflow_run_id() == "1"


def test_the_mark_of_a_version_that_had_one_tracker(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.mirrored.write_text(json.dumps({"uri": "http://host", "mlflow_run_id": "1"}))
    assert folder.mlflow_run_id() == "1" and settled(folder.mirrored) == {"mlflow"}


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    file = RunFolder(tmp_path).mirrored
    file.write_text("{")
    assert settled(file) == set()
    mark_complete(file, "csv", {})
    assert settled(file) == {"csv"}
