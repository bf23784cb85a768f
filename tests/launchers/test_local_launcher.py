"""Sweeps on this machine: isolation, naming of failures, skipping, and what a kill or Ctrl-C leaves behind."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from disturbances import when_training
from pmexp.command.compose import compose
from same_run import assert_same_run
from small_runs import TINY_VIT, Runs

pytestmark = pytest.mark.slow
SWEEP = ["-m", *TINY_VIT, "train.batch_size=64", "train.select=last", "train.log_every=1", "tracking=off"]
LONG = [*SWEEP, "train.epochs=1000"]


@pytest.fixture(scope="module")
def alone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run that is left alone is executed for the first test that compares with it, and then found."""
    return tmp_path_factory.mktemp("alone")


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


def test_sigkill_of_one_worker_loses_that_run_alone(runs: Runs) -> None:
    sweep = [*SWEEP, "train.epochs=1", "variant=baseline,pm-drop", "seed=0,1", "hydra.launcher.n_jobs=2"]
    with when_training(runs, "baseline-s1", signal.SIGKILL, to_driver=False):
        code, _, err = runs.train(*sweep, "hydra.launcher.max_retries=0")
    assert code == 1
    assert sorted(runs.summaries()) == ["baseline-s0", "pm-drop-s0", "pm-drop-s1"]
    assert "1 of 4 runs did not finish" in err
    (line,) = [line for line in err.splitlines() if line.startswith("  baseline-s1-")]
    assert "killed by SIGKILL" in line and line.endswith("log.txt)")
    finished = list(runs.folder.glob("default/*/summary.json"))
    before = {file: file.stat().st_mtime_ns for file in finished}
    code, out, _ = runs.train(*sweep)
    assert code == 0 and "4 runs, 3 of them finished before" in out
    (ended,) = [line for line in out.splitlines() if " finished (" in line]
    assert ended.startswith("baseline-s1") and " s; 1 of 1 in " in ended
    assert len(runs.summaries()) == 4
    assert before == {file: file.stat().st_mtime_ns for file in finished}


def test_a_failing_run_leaves_the_others_whole_and_is_named(runs: Runs) -> None:
    arguments = ["-m", *TINY_VIT, "train.max_steps=2", "tracking=off"]
    assert runs.train(*arguments, "seed=1")[0] == 0
    broken = runs.folder / "default" / runs.summaries()["baseline-s1"]["run_id"]
    (broken / "summary.json").unlink()
    best = broken / "checkpoints" / "best-00000002.safetensors"
    best.unlink()
    best.mkdir()  # the best weights cannot be written
    code, _, err = runs.train(*arguments, "seed=0,1,2")
    assert code == 1
    assert f"{broken.name}: failed: IsADirectoryError" in err
    assert (broken / "log.txt").read_text().count("ERROR Traceback") == 1  # it would fail again: not retried
    assert sorted(runs.summaries()) == ["baseline-s0", "baseline-s2"]


def test_equal_runs_of_two_names_end_each_in_its_own_way(runs: Runs) -> None:
    """The first fails and the second finishes: neither outcome stands for the other's."""
    arguments = [*TINY_VIT, "train.max_steps=2", "tracking=off"]
    run_id = compose(arguments).run_id
    weights = runs.folder / "a" / run_id / "checkpoints" / "best-00000002.safetensors"
    weights.mkdir(parents=True)  # so that they cannot be written
    code, out, err = runs.train("-m", *arguments, "name=a,b", "train.lr=0.002,2e-3")
    assert code == 1 and "1 of 2 runs did not finish" in err
    assert "4 combinations are 2 different runs; each is executed once" in out
    assert f"\na/{run_id} failed (" in out and f"\nb/{run_id} finished (" in out
    assert f"  a/{run_id}: failed: IsADirectoryError" in err and f"b/{run_id}" not in err
    assert (runs.folder / "b" / run_id / "summary.json").is_file()
    assert not (runs.folder / "a" / run_id / "summary.json").exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_sweep_stops_its_children_and_leaves_what_goes_on(stop: signal.Signals, runs: Runs) -> None:
    with when_training(runs, "baseline-s0", stop, to_driver=True) as pids:
        code, _, err = runs.train(*LONG, "seed=0,1")
    assert code == 130 and "run the same command to go on" in err
    assert not is_alive(pids[0])
    (folder,) = runs.run_folders()
    assert json.loads((folder / "failure.json").read_text())["status"] == "interrupted"
    stopped_at = json.loads((folder / "journal.jsonl").read_text().splitlines()[-1])["step"]
    (folder / "journal.jsonl").write_text(
        (folder / "journal.jsonl").read_text().replace("train/loss", "train/seen")
    )
    with when_training(runs, "baseline-s0", stop, to_driver=True):
        assert runs.train(*LONG, "seed=0")[0] == 130
    assert f"resumed at step {stopped_at} of 20000" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_a_run_that_is_disturbed_goes_on_by_itself_as_if_left_alone(
    stop: signal.Signals, runs: Runs, alone_folder: Path
) -> None:
    arguments = [*SWEEP, "train.epochs=2", "train.select=best", "variant=pm-drop", "checkpoint.every_s=0"]
    with when_training(runs, "pm-drop-s0", stop, to_driver=False, with_checkpoint=True):
        code, out, _ = runs.train(*arguments)
    assert code == 0 and ("retry 1 of 2" if stop is signal.SIGKILL else "it goes on") in out
    (folder,) = runs.run_folders()
    assert "resumed at step" in (folder / "log.txt").read_text()
    alone = Runs(alone_folder, runs.capture)
    assert alone.train(*arguments)[0] == 0
    assert_same_run(folder, alone.run_folders()[0])


def test_the_same_run_named_twice_is_run_once_and_each_in_its_own_process(runs: Runs) -> None:
    code, out, _ = runs.train("-m", *TINY_VIT, "train.max_steps=2", "tracking=off", "seed=0,0,1")
    assert code == 0 and "2 runs, 0 of them finished before" in out
    assert re.findall(r" finished \(.* s; (. of .) in .* s\)\n", out) == ["1 of 2", "2 of 2"]
    pids = {json.loads((folder / "owner.json").read_text())["pid"] for folder in runs.run_folders()}
    assert len(pids) == 2 and os.getpid() not in pids


def test_a_sweep_writes_nothing_outside_its_runs(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert runs.train("-m", *TINY_VIT, "train.max_steps=2", "seed=0,1")[0] == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_plan_names_every_run_of_the_sweep(runs: Runs) -> None:
    code, _, err = runs.train("-m", *TINY_VIT, "train.max_steps=2", "tracking=off", "seed=0,1")
    assert code == 0, err
    plan = json.loads((runs.folder / "default" / "plan.json").read_text())
    assert [entry["run_id"] for entry in plan] == [folder.name for folder in runs.run_folders()]
    assert plan[1]["seed"] == 1 and plan[1]["settings"]["train.max_steps"] == 2
