"""`python -m pmexp.runs`: the states of run folders in a list, damaged ones among them, and watching them."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from composed import DEFAULT
from demo_experiment import HEADINGS, HERE, STATES, Demo, failure, summary
from pmexp.run_folder import found
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import digest_of_journal
from pmexp.runs import watch


def test_every_state_is_told(demo: Demo) -> None:
    listed = demo.objects()
    assert list(listed) == STATES  # in the plan's order
    assert [run["state"] for run in listed.values()] == STATES
    running = listed["running"]
    assert (running["step"], running["steps_total"], running["loss"]) == (5, 40, 0.2)
    assert (running["host"], running["attempt"], running["seed"]) == (HERE, 2, 0)
    assert running["seconds"] == pytest.approx(100, abs=30) and running["folder"].endswith("demo/running")
    assert listed["pending"]["step"] == 0 and listed["pending"]["seconds"] is None
    assert listed["oom"]["error"] == "OutOfMemoryError: no room" and listed["oom"]["loss"] is None
    assert listed["finished"]["error"] is None and listed["finished"]["loss"] == 1 / 40


def test_a_table_has_a_line_for_each_run(demo: Demo) -> None:
    code, out, _ = demo("demo")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["run", "state", *HEADINGS]
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert failed.split()[1:4] == ["failed", "5/40", "0.2000"] and failed.endswith("ValueError: \\x1b[31mno")
    assert "demo: 7 runs: 1 pending, 1 running, 1 finished, 1 oom, 1 failed, 1 interrupted, 1 stale" in lines
    assert lines[-1].endswith(f"python -m pmexp.runs retry demo runs_dir={demo.runs_dir}")


def test_experiments_are_counted(demo: Demo) -> None:
    (demo.runs_dir / "mlartifacts").mkdir()
    code, out, _ = demo()
    assert code == 0 and out.splitlines()[0].split() == ["experiment", "runs", *STATES]
    assert [line.split() for line in out.splitlines()[1:]] == [["demo", "7", *["1"] * 7]]
    assert json.loads(demo("--json")[1]) == [{"name": "demo", "runs": 7, **dict.fromkeys(STATES, 1)}]


@pytest.mark.parametrize(
    ("beat_s_ago", "state"), [(5, "running"), (100, "running"), (200, "stale")], ids=["fresh", "late", "old"]
)
def test_a_run_of_another_host_lives_by_its_heartbeat(demo: Demo, beat_s_ago: float, state: str) -> None:
    folder = demo.run("elsewhere", host="another", started_s_ago=5000.0)
    folder.heartbeat.touch()
    os.utime(folder.heartbeat, (0, time.time() - beat_s_ago))
    (folder.path / "config.yaml").write_text(yaml.safe_dump(DEFAULT.to_dict()))
    run = demo.objects()["elsewhere"]
    assert (run["state"], run["host"]) == (state, "another")
    assert run["task"] == DEFAULT.labels["task"] and run["variant"] == "baseline"
    assert run["seconds"] == pytest.approx(5000 if state == "running" else 5000 - beat_s_ago, abs=30)


def test_no_folder_of_runs_is_one_line(demo: Demo) -> None:
    demo.runs_dir = demo.runs_dir / "nowhere"
    assert "nowhere is not a folder" in demo()[2]


@pytest.mark.parametrize("file", ["summary.json", "failure.json", "owner.json"])
@pytest.mark.parametrize(
    "content", ["{nonsense", "[1]", "\x00", '{"status": "x", "kind": "x", "error": "x"}']
)
def test_a_damaged_folder_does_not_hide_the_others(demo: Demo, file: str, content: str) -> None:
    folder = demo.run("damaged")
    (folder.path / file).write_text(content)
    listed = demo.objects()
    assert len(listed) == 8
    assert listed["damaged"]["state"] == "failed" and str(folder.path) in listed["damaged"]["error"]
    assert demo("demo")[0] == 0


@pytest.mark.parametrize("digest", [True, False])
def test_a_run_whose_journal_is_not_as_it_left_it_has_no_result(demo: Demo, digest: bool) -> None:
    folder = RunFolder(demo.folder / "finished")
    with folder.journal.open("rb") as stream:
        ended = asdict(digest_of_journal(stream.read()))
    if digest:
        folder.summary.write_text(json.dumps(summary(journal=ended)))
    assert demo.objects()["finished"]["state"] == "finished"
    with folder.journal.open("a") as stream:
        stream.write("nonsense\n")
    run = demo.objects()["finished"]
    assert run["state"] == "failed" and str(folder.journal) in run["error"]
    assert (run["step"], run["loss"]) == (40, 1 / 40)


@pytest.mark.parametrize(
    "content", ["{", "[1]", '[{"run_id": "../../x"}]', '[{"run_id": ".."}]', '{"a": 1}', "[[]]"]
)
def test_a_damaged_plan_is_one_line(demo: Demo, content: str) -> None:
    (demo.folder / "plan.json").write_text(content)
    code, _, err = demo("demo")
    assert code == 2 and err.count("\n") == 1 and f"{demo.folder / 'plan.json'}" in err


def test_the_command_starts_without_torch(demo: Demo) -> None:
    code = (
        "import sys; from pmexp.runs.command import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'mlflow', 'pandas', 'rich'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "demo", "--runs-dir", str(demo.runs_dir)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "7 runs" in done.stdout, done.stderr


def test_watching_ends_when_nothing_runs_any_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Demo(tmp_path / "runs", capsys)
    folder = demo.run("one")
    demo.run("two", failure=failure("failed", "ValueError: no"))
    claims = ExitStack()
    claims.enter_context(folder.claimed())
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        """Ends the run in the third pause, and lets time go by without waiting."""
        looks.append(seconds)
        if len(looks) == 3:
            folder.summary.write_text(json.dumps(summary()))
            claims.close()

    monkeypatch.setattr(watch, "sleep", sleep)
    monkeypatch.setattr(watch, "monotonic", lambda: sum(looks))
    code, out, _ = demo("demo", "--watch")
    assert code == 0 and "demo: 2 runs: 1 finished, 1 failed" in out
    assert looks == [2.0] * 7  # the last look at a running one was after 4 s, the end 10 s later
    (demo.folder / "two" / "failure.json").unlink()
    (demo.folder / "two" / "summary.json").write_text(json.dumps(summary()))
    looks.clear()
    assert demo("demo", "--watch")[0] == 0 and looks == []  # all are settled: no second look


def test_what_is_settled_is_read_once(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {run.run_id: run for run in found.find_runs(demo.runs_dir, "demo")}
    read: list[Path] = []
    original = found.read_run
    monkeypatch.setattr(found, "read_run", lambda path, planned: read.append(path) or original(path, planned))
    assert len(found.find_runs(demo.runs_dir, "demo", before)) == 7
    assert sorted(path.name for path in read) == ["failed", "interrupted", "pending", "running", "stale"]
