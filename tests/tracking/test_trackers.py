"""Every tracker keeps the same promises: it has what the run's folder has, each value once, whatever happened."""

import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import wandb

from pmexp.config import TRACKERS as NAMES
from pmexp.errors import UserError
from pmexp.run_folder.mirrored import lacking, where
from pmexp.runs.command import main
from pmexp.tracking import mirror
from pmexp.tracking.beside import MirrorBeside, open_mirror
from pmexp.tracking.mirror import NoMirror
from pmexp.tracking.record import Record
from pmexp.tracking.repair import repair
from pmexp.tracking.trackers import TRACKERS, check_installed
from pmexp.tracking.wandb_files import read_wandb
from small_runs import TINY_VIT, Runs
from tracked_runs import TrackedRun, in_process, wait_for
from tracker_contents import READERS, assert_agrees

Database = Callable[[Path], Path]
each_tracker = pytest.mark.parametrize("tracker", NAMES)


@pytest.fixture(autouse=True)
def _a_database(tmp_path: Path, database: Database) -> None:
    database(tmp_path)


def tracked(tmp_path: Path, *trackers: str, seed: int = 0) -> TrackedRun:
    return TrackedRun(tmp_path, seed, trackers=trackers)


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of trackers below a folder."""
    names = ("mlflow.db", "metrics.csv", "events.out.*", "*.wandb")
    return {file: file.read_bytes() for name in names for file in folder.rglob(name)}


def mirrored_values(run: TrackedRun, tracker: str) -> int:
    try:
        return READERS[tracker](run).values.total()
    except (OSError, ValueError, KeyError):  # it is not there, or not whole, as yet
        return 0


@each_tracker
def test_a_run_that_is_mirrored_while_it_goes_on(tracker: str, tmp_path: Path) -> None:
    run = tracked(tmp_path, tracker).mirrored()
    run.steps(3)
    if tracker != "wandb":  # which writes to disk when it likes
        wait_for(lambda: mirrored_values(run, tracker) == 6)
        assert_agrees(run, tracker, "RUNNING")
    assert not run.is_complete()
    run.steps(2)
    run.end()
    assert run.is_complete()
    assert_agrees(run, tracker, "FINISHED")
    before = contents(tmp_path)
    assert list(repair(tmp_path, "default")) == ["1 run: 1 right"]
    assert contents(tmp_path) == before


@each_tracker
def test_a_run_that_goes_on_has_no_value_twice(tracker: str, tmp_path: Path) -> None:
    """Neither where its journal is as it was, nor where it was cut back to a checkpoint."""
    first = tracked(tmp_path, tracker).mirrored()
    first.steps(3)
    first.end("interrupted")
    assert_agrees(first, tracker, "KILLED")
    wandb.teardown()  # as the first process did when it ended
    second = tracked(tmp_path, tracker).mirrored()
    assert not second.is_complete()
    second.end("interrupted")
    assert_agrees(second, tracker, "KILLED")
    wandb.teardown()
    lines = second.folder.journal.read_text().splitlines(keepends=True)
    second.folder.journal.write_text("".join(lines[:4]))
    third = tracked(tmp_path, tracker).mirrored()
    third.steps(4)
    third.end()
    assert third.is_complete()
    assert_agrees(third, tracker, "FINISHED")


@each_tracker
def test_runs_that_a_tracker_never_saw(tracker: str, tmp_path: Path) -> None:
    endings = {"finished": "FINISHED", "oom": "FAILED", "failed": "FAILED", "killed": "KILLED"}
    runs = {}
    for seed, ending in enumerate(endings):
        runs[ending] = tracked(tmp_path, tracker, seed=seed)
        runs[ending].steps(seed)  # the first has no values but final ones
        runs[ending].record_end(ending)
    assert list(repair(tmp_path, "default"))[-1] == "4 runs: 4 changed"
    for ending, run in runs.items():
        assert run.is_complete()
        assert_agrees(run, tracker, endings[ending])
    assert list(repair(tmp_path, "default")) == ["4 runs: 4 right"]


@each_tracker
def test_a_run_that_is_killed(tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def a_run() -> None:
        run = tracked(tmp_path, tracker).mirrored()
        run.steps(3)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)

    if tracker == "wandb":  # whose own process, which a fork would share, would go on
        with monkeypatch.context() as patch:
            patch.delenv("WANDB_SERVICE", raising=False)
            patch.delitem(sys.modules, "wandb", raising=False)
            run = tracked(tmp_path, tracker).mirrored()
            assert isinstance(run._mirror, MirrorBeside) and run._mirror._process
        run.steps(3)
        wait_for(lambda: list(tmp_path.glob("default/wandb/*/*.wandb")))
        run._mirror._process.communicate()  # which ends its input, as the death of the run's process does
        (file,) = tmp_path.glob("default/wandb/*/*.wandb")
        assert read_wandb(file, "final/").exit_code is None
    else:
        process = in_process(a_run)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    run = tracked(tmp_path, tracker)
    assert not run.is_complete()
    list(repair(tmp_path, "default"))
    assert_agrees(run, tracker, "KILLED")
    wandb.teardown()
    again = run.mirrored()
    again.steps(2)
    again.end()
    assert again.is_complete()
    assert_agrees(again, tracker, "FINISHED")


def _spoil_mlflow(run: TrackedRun) -> None:
    with closing(sqlite3.connect(Path(run.config.runs_dir) / "mlflow.db")) as connection:
        connection.execute("UPDATE metrics SET value = 7 WHERE key = 'train/loss' AND step = 2")
        connection.commit()


def _spoil_wandb(run: TrackedRun) -> None:
    (file,) = run.folder.path.parent.glob("wandb/*/*.wandb")
    file.write_bytes(file.read_bytes()[:-300])
    shutil.copytree(file.parent, file.parent.with_name(f"offline-run-20200101_000000-{run.folder.path.name}"))


def _spoil_tensorboard(run: TrackedRun) -> None:
    (file,) = run.folder.path.glob("events.out.tfevents.*")
    (run.folder.path / "events.out.tfevents.000009").write_bytes(file.read_bytes())


def _spoil_csv(run: TrackedRun) -> None:
    file = run.folder.path / "metrics.csv"
    file.write_text(file.read_text().replace("train/loss,2", "train/loss,7"))


SPOILS = {
    "mlflow": _spoil_mlflow,
    "wandb": _spoil_wandb,
    "tensorboard": _spoil_tensorboard,
    "csv": _spoil_csv,
}


@each_tracker
def test_what_a_tracker_has_otherwise_is_mended(tracker: str, tmp_path: Path) -> None:
    run = tracked(tmp_path, tracker)
    run.steps(4)
    run.record_end("finished")
    list(repair(tmp_path, "default"))
    wandb.teardown()
    SPOILS[tracker](run)
    assert list(repair(tmp_path, "default"))[-1] == "1 run: 1 changed"
    assert_agrees(run, tracker, "FINISHED")
    assert list(repair(tmp_path, "default")) == ["1 run: 1 right"]


@pytest.mark.parametrize("tracker", ["tensorboard", "csv"])
def test_a_file_that_was_cut_anywhere_gets_the_rest(tracker: str, tmp_path: Path) -> None:
    run = tracked(tmp_path, tracker)
    run.steps(3)
    run.record_end("finished")
    list(repair(tmp_path, "default"))
    ((file, whole),) = contents(run.folder.path).items()
    for kept in range(0, len(whole), 41):
        file.write_bytes(whole[:kept])
        changes = TRACKERS[tracker]().open(run.config, Record(run.config, run.folder)).settle("FINISHED")
        assert changes == [f"{len(whole) - kept} bytes added"]
        assert contents(run.folder.path) == {file: whole}


def test_an_event_file_that_is_written_anew_has_a_later_name(tmp_path: Path) -> None:
    """A TensorBoard that reads the run would never look into one of the same name again."""
    run = tracked(tmp_path, "tensorboard")
    names = []
    for seed in range(3):
        run.folder.journal.write_text("")
        run.steps(seed + 1)
        TRACKERS["tensorboard"]().open(run.config, Record(run.config, run.folder)).settle("RUNNING")
        names += [file.name for file in run.folder.path.glob("*tfevents*")]
    assert names == [f"events.out.tfevents.00000{number}" for number in (1, 2, 3)]


def test_every_process_writes_the_same_event_file(tmp_path: Path) -> None:
    """By itself protobuf writes the settings in an order that each process has of its own."""
    run = tracked(tmp_path, "tensorboard")
    run.steps(1)
    TRACKERS["tensorboard"]().open(run.config, Record(run.config, run.folder)).settle("RUNNING")
    ((_, content),) = contents(run.folder.path).items()
    # The longer of two that begin alike is first.
    keys = sorted(run.config.settings, key=lambda key: f"{key}~")
    places = [content.index(bytes([10, len(key)]) + key.encode()) for key in keys]
    assert len(places) > 50 and places == sorted(places)


def test_several_at_once_of_which_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mirror, "_SHORT_END_S", 0.3)
    blocked = tmp_path / "default" / "wandb"
    run = tracked(tmp_path, *NAMES)
    blocked.write_text("a file where W&B makes a folder")
    run.mirrored()
    run.steps(3)
    run.end()
    for tracker in ("mlflow", "tensorboard", "csv"):
        assert_agrees(run, tracker, "FINISHED")
        assert where(run.folder.mirrored, tracker)
    assert set(lacking(run.folder.mirrored)) == {"wandb"}
    assert "W&B lacks a part of this run" in caplog.text
    (run.folder.path / "metrics.csv").unlink()
    with pytest.raises(UserError, match=r"^tracking\.wandb: .*/default/wandb fails \("):
        list(repair(tmp_path, "default"))
    assert_agrees(run, "csv", "FINISHED")  # the others are repaired all the same
    blocked.unlink()
    line, totals = repair(tmp_path, "default")
    assert line == f"{run.folder.path.name}: wandb: created" and totals == "1 run: 1 changed"
    assert run.is_complete()
    assert_agrees(run, "wandb", "FINISHED")


def test_runs_without_a_tracker_get_those_that_are_named(tmp_path: Path) -> None:
    run = tracked(tmp_path)
    run.steps(2)
    run.record_end("finished")
    assert list(repair(tmp_path, "default")) == ["1 run: 1 untracked"]
    list(repair(tmp_path, "default", trackers=("csv", "tensorboard")))
    for tracker in ("csv", "tensorboard"):
        assert_agrees(run, tracker, "FINISHED")
    assert not list((tmp_path / "default").glob("wandb"))
    with pytest.raises(UserError, match=r"^trackers: 'cvs' is none; allowed are mlflow, wandb, "):
        list(repair(tmp_path, "default", trackers=("cvs",)))


@pytest.mark.parametrize("tracker", ["mlflow", "wandb", "tensorboard"])
def test_a_package_that_is_missing_is_named(tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(UserError, match=rf"^tracking={tracker} needs {tracker}, .*pmexp\[{tracker}\]"):
        check_installed([tracker])
    check_installed({*NAMES} - {tracker})


def test_a_run_needs_no_package_of_a_tracker_that_it_does_not_use(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("mlflow", "wandb", "tensorboard"):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
    short = [*TINY_VIT, "train.max_steps=2", "train.log_every=1"]
    code, _, error = runs.train(*short, "tracking=[csv,wandb]")
    assert code == 2 and "pip install 'pmexp[wandb]'" in error
    assert not runs.folder.joinpath("default").exists()
    assert runs.train(*short, "tracking=csv")[0] == 0
    assert runs.summaries()["baseline-s0"]["tracking"] == {"trackers": ["csv"]}
    (folder,) = runs.run_folders()
    assert json.loads((folder / "tracking.json").read_text()) == {"csv": {"file": "metrics.csv"}}
    off = tracked(runs.folder, seed=1)
    assert isinstance(open_mirror(off.config, off.folder), NoMirror)


def test_a_finished_run_says_how_another_tracker_gets_it(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    short = [*TINY_VIT, "train.max_steps=1", "train.select=last"]
    repair_it = f"pmexp runs repair default runs_dir={runs.folder} trackers=csv"
    assert runs.train(*short, "tracking=off")[0] == 0
    assert runs.train(*short, "tracking=off")[0] == 0 and "repair" not in caplog.text
    with caplog.at_level("INFO"):
        assert runs.train(*short, "tracking=csv")[0] == 0
    assert f"1 finished run is not wholly in csv; {repair_it} brings it there" in caplog.text
    code, out, _ = runs.train("-m", *short, "tracking=csv", "seed=0")
    assert code == 0 and f"1 finished run is not wholly in csv; {repair_it} brings it there" in out
    assert main(repair_it.split()[2:]) == 0
    caplog.clear()
    assert runs.train(*short, "tracking=csv")[0] == 0 and "not wholly in csv" not in caplog.text
