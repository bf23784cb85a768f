"""A summary that was edited is told by the run's id, which is the hash of its settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo_experiment import config
from pmexp.run_folder.found import read_run
from pmexp.run_folder.run_id import not_of_the_run
from pmexp.run_folder.state import State

Edit = Callable[[dict[str, Any]], object]


def kept(summary: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    (folder / "journal.jsonl").write_text("")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda told: None, ""),
        (lambda told: told["settings"].update({"train.lr": 7.0}), "settings are not those that the run's id"),
        (lambda told: told["settings"].pop("train.lr"), "settings are not those that the run's id is the"),
        (lambda told: told["settings"].clear(), "settings are not those that the run's id is the hash of"),
        (lambda told: told["labels"].update(seed=4), "labels.seed is not that of the settings"),
        (
            lambda told: told["labels"].update(variant="baseline"),
            "labels.variant is not that of the settings",
        ),
        (lambda told: told["labels"].update(task="other/task"), "labels.task is not that of the settings"),
    ],
)
@pytest.mark.parametrize("measured_only", [False, True])
def test_an_edited_summary_is_damaged(edit: Edit, said: str, measured_only: bool, tmp_path: Path) -> None:
    run = config("variant=pm-drop", *(["train.shared_with=baseline-s0-0123456789ab"] * measured_only))
    summary = {"status": "finished", "labels": dict(run.labels), "settings": dict(run.settings)}
    edit(summary)
    read = read_run(kept(summary, tmp_path / run.run_id))
    assert said in read.damage and bool(read.damage) == bool(said)
    assert read.state is (State.failed if said else State.finished)


def test_an_id_that_somebody_else_made_says_nothing() -> None:
    assert not_of_the_run("my-run", {"train.lr": 1.0}, {"seed": 3}) == ""
