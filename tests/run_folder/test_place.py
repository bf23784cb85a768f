"""A place where nothing can be written is one line and an exit code, before model and data are built."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from composed import config
from disks import fill, small_disk
from fake_slurm import FakeSlurm
from hydra_plugins.pmexp_launchers import processes
from pmexp.command_line import Command, Key
from pmexp.errors import MachineError, UserError
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.place import refuse_unusable
from pmexp.runs.command import main as runs_command
from pmexp.training import run as training_run
from pmexp_analysis import report
from small_runs import TINY_VIT, Runs

WRONG = [
    "/dev/null",
    "/dev/null/below",
    "a file",
    "a file/below",
    "/proc",
    "/proc/below",
    "x" * 300,
    "read-only",
]
PLAIN = [*TINY_VIT, "train.max_steps=2", "tracking=off"]
COMMANDS = {
    "a run": PLAIN,
    "a sweep": ["-m", *PLAIN],
    "a cluster's": ["-m", *PLAIN, "hydra/launcher=slurm", "hydra.launcher.poll_s=0.01"],
}


@contextmanager
def place(name: str, tmp_path: Path) -> Iterator[Path]:
    """A folder below which nothing can be written."""
    if name in ("read-only", "full"):
        options = "ro" if name == "read-only" else "rw"
        with small_disk(tmp_path / "disk", kilobytes=256, options=options):
            if name == "full":
                fill(tmp_path / "disk")
            yield tmp_path / "disk" / "runs"
        return
    (tmp_path / "a file").write_text("something")
    yield tmp_path / name


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def built(*_: Any, **__: Any) -> None:
        raise AssertionError("it was built")

    monkeypatch.setattr(training_run, "prepare", built)
    monkeypatch.setattr(processes, "preload", built)
    monkeypatch.setattr(processes, "check", built)
    FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.mark.parametrize("name", WRONG)
def test_it_is_said_of_every_such_place_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    with place(name, tmp_path) as folder:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match=r"^runs_dir: nothing can be written in ") as caught:
            refuse_unusable(folder / "default" / "run", "runs_dir")
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before


def test_what_is_not_there_yet_can_be_made(tmp_path: Path) -> None:
    refuse_unusable(tmp_path / "a" / "b", "runs_dir")
    assert list(tmp_path.iterdir()) == []
    with (
        place("full", tmp_path) as folder,
        pytest.raises(MachineError, match=f"there is no room in {folder}"),
    ):
        refuse_unusable(folder, "runs_dir")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "code"), [("/dev/null", 2), ("/proc", 2), ("x" * 300, 2), ("full", 3)])
def test_runs_are_refused_in_one_line(
    command: str,
    name: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nothing_is_built: None,
) -> None:
    with place(name, tmp_path) as folder:
        ended, _, err = Runs(folder, capsys).train(*COMMANDS[command])
    assert ended == code and err.startswith("error: runs_dir: ") and err.count("\n") == 1, err


@pytest.mark.parametrize(("name", "code"), [("/proc", 2), ("read-only", 2), ("full", 3)])
def test_a_page_is_refused_before_it_is_made(
    name: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command("pmexp.pages", "a page that takes minutes", (Key("out", "its file"),))
    with place(name, tmp_path) as folder:
        given = [f"out={(folder if folder.is_dir() else folder.parent) / 'page.md'}"]
        assert command.run(given, lambda given: given.write_page("out", lambda: pytest.fail("made"))) == code
    err = capsys.readouterr().err
    assert err.startswith("error: out: ") and err.count("\n") == 1, err


def test_running_again_on_a_full_disk_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nothing_is_built: None
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=256):
        run = config(f"runs_dir={tmp_path / 'disk'}", "name=all", "tracking=off")
        folder = RunFolder(run.folder)
        folder.path.mkdir(parents=True)
        (folder.path / "config.yaml").write_text(json.dumps(run.to_dict()))
        folder.failure.write_text(json.dumps({"status": "failed", "kind": "code", "error": "why", "log": ""}))
        fill(tmp_path / "disk")
        code = runs_command(["retry", "all", "--runs-dir", str(tmp_path / "disk")])
        err = capsys.readouterr().err
    assert code == 3 and err.startswith("error: runs_dir: there is no room") and err.count("\n") == 1, err


@pytest.mark.parametrize(("name", "code"), [("/dev/null", 2), ("/proc", 2), ("full", 3)])
def test_a_report_is_refused_before_the_runs_are_read(
    name: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with place(name, tmp_path) as folder:
        ended = report.main(["nothing", "--runs-dir", str(tmp_path / "none"), "--out", str(folder)])
    err = capsys.readouterr().err
    assert ended == code and err.startswith("error: out: ") and err.count("\n") == 1, err


@pytest.mark.parametrize("name", ["checkpoints", "artifacts"])
def test_a_file_where_a_run_has_a_folder_is_one_line(name: str, runs: Runs) -> None:
    run = config(*PLAIN, f"runs_dir={runs.folder}")
    run.folder.mkdir(parents=True)
    (run.folder / name).write_text("something")
    code, _, err = runs.train(*PLAIN)
    assert code == 2 and err == f"error: {run.folder / name} is no folder; remove it and run this again\n"
