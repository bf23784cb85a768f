"""One run on two processes, from the command line: what it computes, and what becomes of it when a rank fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from pmexp import experiment
from pmexp.journal import read_journal
from pmexp.run_folder import RunFolder
from pmexp.systems import launch
from small_runs import TINY_VIT, Runs

pytestmark = pytest.mark.slow
TWO = ["system=ddp", "system.processes=2"]
SHORT = ["train.max_steps=4", "train.log_every=1"]


def train(folder: Path, *arguments: str, fault: str = "") -> tuple[int, str, str]:
    """The command: (exit code, stdout, stderr). `fault` is executed in the second step of rank 1."""
    environment = dict(os.environ)
    if fault:
        patches = folder.parent / "patches"
        patches.mkdir()
        (patches / "sitecustomize.py").write_text(
            "import os, signal, time\n"
            "if os.environ.get('RANK') == '1':\n"
            "    import torch\n"
            "    from pmexp.loop import Training\n"
            "    forward = Training._summed_loss\n"
            "    def faulty(training, *arguments):\n"
            f"        if training.progress.step == 1: {fault}\n"
            "        return forward(training, *arguments)\n"
            "    Training._summed_loss = faulty\n"
        )
        environment["PYTHONPATH"] = os.pathsep.join([str(patches), *sys.path])
    command = [
        sys.executable,
        "-m",
        "pmexp.train",
        *TINY_VIT,
        "tracking=off",
        *arguments,
        f"runs_dir={folder}",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def run_folder(folder: Path) -> Path:
    (config,) = folder.glob("default/*/config.yaml")
    return config.parent


def curve(folder: Path, metric: str) -> list[tuple[int, float]]:
    records = [record for record, _ in read_journal(run_folder(folder) / "journal.jsonl")]
    return [(record["step"], record["value"]) for record in records if record["metric"] == metric]


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_two_processes_train_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without dropout: the gradient's terms are summed in another order, which is fp32 rounding."""
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["variant=pm-drop", "variant.p=0", "robustness.fgsm=0.05", *SHORT]
    assert Runs(one, capsys).train(*TINY_VIT, "tracking=off", *arguments)[0] == 0
    code, out, err = train(two, *arguments, *TWO)
    assert code == 0 and "summary.json" in out, err
    for metric in ("train/loss", "grad/norm", "val/loss", "val/accuracy", "test/loss", "fgsm/loss"):
        expected = curve(one, metric)
        assert [step for step, _ in curve(two, metric)] == [step for step, _ in expected]
        for (_, found), (_, value) in zip(curve(two, metric), expected, strict=True):
            assert found == pytest.approx(value, rel=1e-5), metric
    folder = run_folder(two)
    assert (folder / "rank1.txt").is_file() and (folder / "artifacts" / "updates.npz").is_file()
    assert not (folder / "failure.json").exists()


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """The launcher gets SIGTERM while rank 1 is in its second step."""
    arguments = ["variant=pm-drop", *TWO, "train.max_steps=8", "train.log_every=1"]
    stopped, alone = tmp_path / "stopped", tmp_path / "alone"
    code, _, err = train(stopped, *arguments, fault="os.kill(os.getppid(), signal.SIGTERM), time.sleep(2)")
    assert code == 130 and "run the same command to go on" in err
    assert read(run_folder(stopped) / "failure.json")["status"] == "interrupted"
    assert 0 < len(curve(stopped, "train/loss")) < 8
    assert train(stopped, *arguments)[0] == 0
    assert train(alone, *arguments)[0] == 0
    for metric in ("train/loss", "grad/norm", "val/loss"):
        assert curve(stopped, metric) == curve(alone, metric)
    assert [step for step, _ in curve(stopped, "train/loss")] == list(range(1, 9))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise ValueError('of rank 1')", "rank 1: ValueError: of rank 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1: Signal 9 (SIGKILL)"),
    ],
)
def test_a_rank_that_fails_is_named(fault: str, words: str, tmp_path: Path) -> None:
    code, _, err = train(tmp_path / "runs", *TWO, *SHORT, fault=fault)
    assert code == 1 and words in err.splitlines()[-1], err
    folder = run_folder(tmp_path / "runs")
    failure = read(folder / "failure.json")
    assert words in failure["error"] and failure["log"] == str(folder / "rank1.txt")
    assert not (folder / "summary.json").exists()


def test_memory_that_does_not_suffice_to_build_the_run_is_the_result_too(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a rank left of its error, as torch's launcher writes it; no process is started."""
    said = "RuntimeError: [enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    file = runs.folder.parent / "error.json"
    file.write_text(json.dumps({"message": {"message": said, "extraInfo": {"timestamp": "0"}}}))
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=1, error_file=str(file))
    monkeypatch.setattr(
        experiment, "launch", lambda config, _: launch._raise(RunFolder(config.folder), {1: failure})
    )
    code, out, err = runs.train(*TINY_VIT, *TWO, *SHORT, "tracking=off")
    assert code == 0 and "summary.json" in out, err
    summary = read(run_folder(runs.folder) / "summary.json")
    assert summary["status"] == "oom" and "you tried to allocate" in summary["error"]


def test_a_rank_out_of_memory_is_the_result(tmp_path: Path) -> None:
    code, out, err = train(tmp_path / "runs", *TWO, *SHORT, fault="torch.empty(2**50)")
    assert code == 0 and "summary.json" in out, err
    folder = run_folder(tmp_path / "runs")
    summary = read(folder / "summary.json")
    assert summary["status"] == "oom" and "you tried to allocate" in summary["error"]
    assert not (folder / "failure.json").exists()
