"""Pipes, sockets and devices where a file should be: every reader says so, and none waits for them."""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from begun_runs import begun
from composed import config
from pmexp.config import DatasetConfig, DatasetKind, read_config
from pmexp.datasets import digest, listops
from pmexp.errors import UserError
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import find_runs
from pmexp.run_folder.journal import Journal
from pmexp.run_folder.journal_lines import progress_of, read_curve, read_lines
from pmexp.run_folder.plan import add_to_plan, read_plan
from pmexp.run_folder.summary import write_summary
from pmexp.runs import table
from pmexp.tracking.repair import repair
from pmexp_analysis.numbers import fits
from pmexp_analysis.sources.folders import load_runs


def a_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(file.parent)  # the address may be 100 letters long
        made.bind(file.name)


def a_device(file: Path) -> None:
    """Makes a device at `file` that reads as zeros without end."""
    try:
        os.mknod(file, 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no devices may be made here")


ODD: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "socket": a_socket, "device": a_device}
FILES = [
    "summary.json", "journal.jsonl", "config.yaml", "owner.json", "failure.json", "attempts.jsonl",
    "tracking.json", "heartbeat", ".lock",
]  # fmt: skip


class Waits(BaseException):
    """Says that a reader waits. It is no Exception, so that no reader takes it for damage."""


@pytest.fixture(autouse=True)
def _a_reader_that_waits_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Waits

    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 10, 1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Two runs, the first finished and the second killed."""
    made = []
    runs_dir = tmp_path_factory.mktemp("whole")
    for seed in range(2):
        run, folder = begun(runs_dir, seed)
        with Journal(folder.journal) as journal:
            journal.write(1, {"train/loss": 1.0})
            if seed == 0:
                told = {"run_id": run.run_id, "labels": run.labels, "settings": run.settings}
                write_summary(folder.summary, told, {"train/loss": 1.0}, {}, {}, None, journal.digest())
        made.append(folder)
    return made


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", FILES)
def test_list_repair_and_report_go_on(name: str, kind: str, whole: list[RunFolder], tmp_path: Path) -> None:
    finished, killed = (folder.path.name for folder in whole)
    named = {"summary.json": [finished, killed], "owner.json": [finished, killed]}
    named |= {"journal.jsonl": [finished], "failure.json": [killed]}
    for hurt, other in ((finished, killed), (killed, finished)):
        shutil.copytree(whole[0].path.parent, tmp_path / "all")
        folder = RunFolder(tmp_path / "all" / hurt)
        (folder.path / name).unlink(missing_ok=True)
        ODD[kind](folder.path / name)
        listed = {run.run_id: run for run in find_runs(tmp_path, "all")}
        table.runs_json(list(listed.values()))
        assert not listed[other].damage
        if hurt in named.get(name, ()):
            assert f"{folder.path / name} is damaged: it is no regular file" in listed[hurt].error
        with suppress(UserError):  # perhaps no run of them is finished any more
            load_runs(tmp_path, "all")
        assert list(repair(tmp_path, "all"))[-1].startswith(("1 run", "2 runs"))
        if name == "attempts.jsonl":
            with pytest.raises(UserError, match="no regular file"):
                folder.last_start()
        with pytest.raises(UserError, match="no file and no folder"), folder.claimed():
            pass
        shutil.rmtree(tmp_path / "all")


@pytest.mark.parametrize("kind", ODD)
def test_each_reader_of_a_file_says_so(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "all" / "run" / "odd.json"
    file.parent.mkdir(parents=True)
    ODD[kind](file)
    assert progress_of(file).step == 0
    readers: dict[str, Callable[[], object]] = {
        "curve": lambda: read_curve(file),
        "lines": lambda: list(read_lines(file)),
        "configuration": lambda: read_config(file),
        "fit": lambda: fits._read(file),
        "digest": lambda: digest.sha256_of(file),
    }
    for name, reader in readers.items():
        with pytest.raises(UserError) as caught:
            reader()
        assert "no regular file" in str(caught.value), name


@pytest.mark.parametrize("kind", ODD)
def test_a_plan_that_is_none_is_named_and_replaced(kind: str, tmp_path: Path) -> None:
    ODD[kind](tmp_path / "plan.json")
    with pytest.raises(UserError, match=str(tmp_path / "plan.json")):
        read_plan(tmp_path)
    labels = config().labels
    add_to_plan(tmp_path, [("a", labels, {})])
    assert list(read_plan(tmp_path)) == ["a"]


@pytest.mark.parametrize("kind", ODD)
def test_digests_of_data_leave_them_out_or_name_them(kind: str, tmp_path: Path) -> None:
    for name in ("train.csv", "train.tsv", "train.txt", listops.SUMS):
        ODD[kind](tmp_path / name)
    given = DatasetConfig(name="mine", kind=DatasetKind.text, path=str(tmp_path), text_columns=["text"])
    assert digest.digest_of_data(given) == digest.of_content([])
    trees = config("model=longformer-base-4096", "dataset=listops", f"dataset.path={tmp_path}").dataset
    with pytest.raises(UserError):
        listops.load(trees)
    with pytest.raises(UserError, match="no regular file"):
        listops._digest(tmp_path / "train.csv")
