"""What each start of a run leaves on record, and that no credential is in it."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pmexp import process
from pmexp.measure import environment, provenance
from pmexp.run_folder.folder import RunFolder
from pmexp.training.loop import Training
from small_runs import TINY_VIT, Runs

SECRETS = {
    "HF_TOKEN": "planted-1-hub",
    "MLFLOW_TRACKING_PASSWORD": "planted-2-mlflow",
    "AWS_SECRET_ACCESS_KEY": "planted-3-aws",
    "SLURM_JWT": "planted-4-slurm",
    "UNSUSPICIOUS": "planted-5-elsewhere",
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.artifacts.mkdir(parents=True)
    owner = {"host": "x", "pid": 1, "started": 1.0, "attempt": 1}
    (folder.path / "owner.json").write_text(json.dumps(owner))
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source tree that is taken for pmexp's, with one commit."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "code.py").write_text("".join(f"line = {number}\n" for number in range(10)))
    for command in ("init -q -b work", "add .", "-c user.name=x -c user.email=x@x commit -qm first"):
        subprocess.run(["git", "-C", str(tree), *command.split()], check=True)
    for module in (environment, provenance):
        monkeypatch.setattr(module, "GIT", ["git", "-C", str(tree)])
    monkeypatch.setattr(environment, "__file__", str(tree / "code.py"))
    environment.git_version.cache_clear()
    monkeypatch.setattr(sys, "argv", ["train"])
    yield tree
    environment.git_version.cache_clear()


def starts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]


def everything_in(folder: Path) -> str:
    return "".join(file.read_bytes().decode(errors="replace") for file in folder.rglob("*") if file.is_file())


def test_every_start_of_a_run_is_on_record_without_any_secret(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Training._step

    def stopped(training: Training, index: int) -> dict[str, float]:
        if index == 3:
            monkeypatch.setattr(Training, "_step", step)
            os.kill(os.getpid(), signal.SIGTERM)
        return step(training, index)

    monkeypatch.setattr(Training, "_step", stopped)
    for name, value in (SECRETS | {"SLURM_JOB_ID": "42", "SLURM_RESTART_COUNT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process, "cpu_quota", lambda: 0.5)
    arguments = [*TINY_VIT, "train.max_steps=6", "tracking=off"]
    assert [runs.train(*arguments)[0] for _ in range(3)] == [130, 0, 0]
    (folder,) = runs.run_folders()
    first, second = starts(folder)  # the third found it finished
    assert [(each["attempt"], each["resumed_at"]) for each in (first, second)] == [(1, 0), (2, 4)]
    assert first["host"] == socket.gethostname() and first["pid"] == os.getpid()
    assert "train.max_steps=6" in first["command"] and first["python"] == platform.python_version()
    assert first["directory"] == os.getcwd() and second["time"] >= first["time"]
    assert first["cpu"]["count"] == os.cpu_count() and first["cpu"]["memory_bytes"] > 2**28
    assert first["cluster"] == {"SLURM_JOB_ID": "42", "SLURM_RESTART_COUNT": "1"}
    packages = (folder / first["packages"]).read_text().splitlines()
    assert f"torch=={version('torch')}" in packages and packages == sorted(set(packages), key=str.lower)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["environment"].get("git_commit") == first["git"].get("commit")
    assert first["cpu"]["usable"] == summary["environment"]["cpu_usable"] == 1
    text = everything_in(folder)
    assert [value for value in SECRETS.values() if value in text] == []


def test_the_source_is_on_record_with_its_changes(folder: RunFolder, repository: Path) -> None:
    commit = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    provenance.record_start(folder, resumed_at=0)
    (repository / "code.py").write_text(
        "line = 1\npassword = 'planted'\nuri = 'postgres://me:planted@db'\nx = dict(api_key='planted')\n"
        "os.environ['API_KEY']='planted'\n{password: planted}\nsetup: [export PGPASSWORD=planted]\n"
        "passphrase: |\n  planted\n  planted\nDB_PASS=planted\nMYSQL_PWD=planted\nAccountKey=planted;x=1\n"
    )
    (repository / "new.py").touch()
    environment.git_version.cache_clear()
    for _ in range(2):
        provenance.record_start(folder, resumed_at=7)
    (repository / "code.py").write_text("line = 'two'\n")
    provenance.record_start(folder, resumed_at=9)
    clean, changed, same, other = (start["git"] for start in starts(folder.path))
    assert clean == {
        "commit": commit, "branch": "work", "changed": False, "diff": None, "diff_is_cut": False,
        "untracked": [], "untracked_count": 0,
    }  # fmt: skip
    assert changed["changed"] and changed["untracked"] == ["new.py"] and changed == same
    assert (changed["diff"], other["diff"]) == ("artifacts/source.diff", "artifacts/source-2.diff")
    diff = (folder.path / changed["diff"]).read_text()
    assert "+password = '***'" in diff and "+uri = 'postgres://me:***@db'" in diff
    assert "planted" not in everything_in(folder.path)
    assert "+line = 'two'" in (folder.path / other["diff"]).read_text()


def test_each_difference_from_the_commit_has_a_digest_of_its_own(repository: Path) -> None:
    told = []
    for text in ("line = 1\n", "line = 2\n", "line = 2\n"):
        environment.git_version.cache_clear()
        (repository / "code.py").write_text(text)
        told.append(environment.git_version())
    assert told[0] != told[1] == told[2]
    assert all(one["git_changed"] == "yes" and len(one["git_diff"]) == 12 for one in told)
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "."], check=True)
    environment.git_version.cache_clear()
    clean = environment.git_version()
    assert clean["git_changed"] == "no" and "git_diff" not in clean


def test_the_diff_that_is_kept_can_be_applied(folder: RunFolder, repository: Path) -> None:
    lines = (repository / "code.py").read_text().replace("line = 4", "line = 'four'") + "\n \n"
    (repository / "code.py").write_text(lines)
    provenance.record_start(folder, resumed_at=0)
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "."], check=True)
    diff = folder.artifacts / "source.diff"
    subprocess.run(["git", "-C", str(repository), "apply", str(diff)], check=True)
    assert (repository / "code.py").read_text() == lines


def test_a_large_diff_is_cut_and_says_so(
    folder: RunFolder, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "DIFF_BYTES", 300)
    (repository / "code.py").write_text("é\n" * 500)
    provenance.record_start(folder, resumed_at=0)
    (start,) = starts(folder.path)
    text = (folder.path / "artifacts" / "source.diff").read_text()
    assert start["git"]["diff_is_cut"] and len(text.encode()) < 400
    assert text.splitlines()[-1].startswith("... cut: these are the first 2")


def test_a_package_that_lies_below_a_repository_is_no_part_of_it(
    folder: RunFolder, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / ".gitignore").write_text(".venv\n")
    monkeypatch.setattr(environment, "__file__", str(repository / ".venv" / "code.py"))
    provenance.record_start(folder, resumed_at=0)
    assert starts(folder.path)[0]["git"] == {} == environment.git_version()


def test_secrets_of_the_command_are_masked(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "planted-1")
    given = [
        "train",
        "--token",
        "planted-2",
        "hub.api_key=planted-3",
        "uri=x://me:planted-4@db",
        "note=planted-1",
        "hydra.launcher.setup=[module load x, export PGPASSWORD=planted-5]",
        "-u",
        "me:planted-6",
    ]
    monkeypatch.setattr(sys, "argv", [*given, "x" * 5000])
    provenance.record_start(folder, resumed_at=0)
    assert "planted" not in everything_in(folder.path)
    command = starts(folder.path)[0]["command"]
    assert command.startswith(
        "train --token '***' 'hub.api_key=***' 'uri=x://me:***@db' 'note=***' "
        "'hydra.launcher.setup=[module load x, export PGPASSWORD=***]' -u 'me:***' xxx"
    )
    assert len(command) < 500


def test_a_line_that_a_kill_cut_off_does_not_swallow_the_next(folder: RunFolder) -> None:
    (folder.path / "attempts.jsonl").write_text('{"attempt": 1, "ho')
    provenance.record_start(folder, resumed_at=3)
    assert json.loads((folder.path / "attempts.jsonl").read_text().splitlines()[1])["resumed_at"] == 3


def test_commands_are_executed_at_the_same_time(tmp_path: Path) -> None:
    """One waits for what the other writes, and both are named in the order in which they were given."""
    os.mkfifo(tmp_path / "pipe")
    read, written = ["cat", f"{tmp_path}/pipe"], ["sh", "-c", f"echo word > {tmp_path}/pipe; echo done"]
    assert environment.outputs_of(read, ["false"], written) == ["word", None, "done"]


def test_gpus_are_what_nvidia_smi_says(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\nprintf 'NVIDIA H100, 550.54, 81559 MiB\\nNVIDIA H100, 550.54, 81559 MiB\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    provenance.record_start(folder, resumed_at=0)
    gpu = {"name": "NVIDIA H100", "driver": "550.54", "memory": "81559 MiB"}
    assert starts(folder.path)[0]["gpus"] == [gpu, gpu]
