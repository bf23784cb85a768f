"""One folder of each state a run can be in: the list, the repair of trackers and the report say the same word."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from composed import config
from disks import read_only_view
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import find_runs
from pmexp.run_folder.journal import Journal
from pmexp.run_folder.state import State
from pmexp.run_folder.summary import write_summary
from pmexp.runs import table
from pmexp.tracking import repair
from pmexp_analysis.sources.folders import load_runs

HERE = os.uname().nodename
WORDS = {
    "planned": State.pending,
    "claimed only": State.running,
    "running": State.running,
    "killed": State.stale,
    "killed in a line": State.stale,
    "interrupted": State.interrupted,
    "failed": State.failed,
    "out of memory": State.oom,
    "finished": State.finished,
    "of another status": State.failed,
    "summary cut": State.failed,
    "journal cut": State.failed,
    "journal emptied": State.failed,
    "journal doubled": State.failed,
    "journal of zeros": State.failed,
    "journal edited": State.failed,
}


class Experiment:
    """Run folders as runs leave them, and as something has damaged them; by what became of each."""

    def __init__(self, runs_dir: Path, claims: ExitStack) -> None:
        self.runs_dir, self.ids = runs_dir, {}
        plan = []
        for seed, word in enumerate(WORDS):
            self.run = config(f"runs_dir={runs_dir}", "name=all", f"seed={seed}", "tracking=off")
            self.ids[word] = self.run.run_id
            plan.append({"run_id": self.run.run_id, **self.run.labels, "settings": {}})
            self.folder = RunFolder(self.run.folder)
            if word != "planned":
                self.make(word, claims)
        (runs_dir / "all" / "plan.json").write_text(json.dumps(plan))

    def make(self, word: str, claims: ExitStack) -> None:
        folder = self.folder
        if word == "claimed only":
            claims.enter_context(folder.claimed())
            return
        folder.path.mkdir(parents=True)
        (folder.path / "config.yaml").write_text(yaml.safe_dump(self.run.to_dict()))
        owner = {"host": HERE, "pid": 1, "started": time.time(), "attempt": 1}
        (folder.path / "owner.json").write_text(json.dumps(owner))
        with Journal(folder.journal) as journal:
            journal.write(0, {"progress/steps_total": 3})
            journal.write(1, {"train/loss": 2.0, "grad/norm": 1.0})
            ended = journal.digest()
        if word == "running":
            claims.enter_context(folder.claimed())
        elif word == "killed in a line":
            folder.journal.write_bytes(folder.journal.read_bytes()[:-5])
        elif word in ("interrupted", "failed"):
            told = {"status": word, "kind": "code", "error": "why", "log": "log.txt"}
            folder.failure.write_text(json.dumps(told))
        elif word != "killed":
            says = "no room" if word == "out of memory" else ""
            run: dict[str, Any] = {"run_id": self.run.run_id, "labels": self.run.labels}
            run["settings"] = self.run.settings
            write_summary(folder.summary, run, {"train/loss": 2.0}, {}, {}, None, ended, says)
            damage(word, folder)


def damage(word: str, folder: RunFolder) -> None:
    content, summary = folder.journal.read_bytes(), folder.summary.read_text()
    match word.partition("journal ")[2] or word:
        case "cut":
            folder.journal.write_bytes(content[: -len(content) // 2])
        case "emptied":
            folder.journal.write_bytes(b"")
        case "doubled":
            folder.journal.write_bytes(2 * content)
        case "of zeros":
            folder.journal.write_bytes(bytes(len(content)))
        case "edited":
            folder.journal.write_bytes(content.replace(b"2.0", b"1.0"))
        case "summary cut":
            folder.summary.write_text(summary[: len(summary) // 2])
        case "of another status":
            folder.summary.write_text(summary.replace("finished", "banana"))


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    with ExitStack() as claims:
        yield Experiment(tmp_path / "runs", claims)


def test_list_repair_and_report_say_the_same_word(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {run.run_id: run for run in find_runs(experiment.runs_dir, "all")}
    assert {word: listed[run_id].state for word, run_id in experiment.ids.items()} == WORDS

    reported = {member.run.run_id: member.run for member in load_runs(experiment.runs_dir, "all").members}
    assert {word: reported[run_id].state for word, run_id in experiment.ids.items()} == {
        word: state.value for word, state in WORDS.items()
    }
    for word, run_id in experiment.ids.items():
        if word.startswith(("journal", "summary", "of another")):  # both say what is damaged
            assert str(experiment.runs_dir / "all" / run_id) in listed[run_id].error
            assert reported[run_id].why == listed[run_id].error

    seen: dict[str, State] = {}
    read = repair.read_run

    def noted(path: Path) -> Any:
        run = read(path)
        seen[run.run_id] = run.state
        return run

    monkeypatch.setattr(repair, "read_run", noted)
    lines = list(repair.repair(experiment.runs_dir, "all"))
    for word, run_id in experiment.ids.items():
        if run_id in seen:  # repair goes by the folders that hold a configuration
            assert seen[run_id] is WORDS[word]
    damaged = [word for word in WORDS if word.startswith(("journal", "summary", "of another"))]
    assert sum("left alone" in line for line in lines) == len(damaged)


def test_who_may_not_write_there_sees_the_same(experiment: Experiment, tmp_path: Path) -> None:
    """As in a colleague's folder, or an archive that is mounted for reading."""
    with read_only_view(tmp_path / "view", experiment.runs_dir):
        listed = {run.run_id: run for run in find_runs(tmp_path / "view", "all")}
    assert {word: listed[run_id].state for word, run_id in experiment.ids.items()} == WORDS


def test_the_list_shows_them(experiment: Experiment) -> None:
    runs = find_runs(experiment.runs_dir, "all")
    told = {run["run_id"]: run["state"] for run in json.loads(table.runs_json(runs))}
    assert told == {experiment.ids[word]: state.name for word, state in WORDS.items()}


def test_the_digest_is_that_of_the_journal(experiment: Experiment) -> None:
    by_id = {run.run_id: run for run in find_runs(experiment.runs_dir, "all")}
    summary = by_id[experiment.ids["finished"]].summary
    assert summary is not None and summary.journal is not None
    folder = RunFolder(by_id[experiment.ids["finished"]].path)
    assert summary.journal.bytes == folder.journal.stat().st_size
    assert asdict(summary.journal)["blake2b"]
