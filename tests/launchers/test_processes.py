"""One run on two processes, from the command line: what it computes, and what becomes of it when a rank fails."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from composed import config
from forked_python import ForkedPython, fork_ranks
from pmexp.process import STOP_SIGNALS
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal_lines import read_lines
from pmexp.run_folder.state import State, state_of
from pmexp.systems import launch
from pmexp.training import run as experiment
from same_run import assert_same_run
from small_runs import TINY_VIT, Runs

pytestmark = pytest.mark.slow
TWO = [*TINY_VIT, "tracking=off", "system=ddp", "system.processes=2"]
SHORT = ["train.max_steps=4", "train.log_every=1"]


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    """torch's launcher leaves its own behind."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def forked_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To import torch takes ranks longer than to train; the installed wheel's are started anew."""
    fork_ranks(monkeypatch)


@contextmanager
def faults_of_ranks(faults: dict[int, str], folder: Path, after_step: int = 1) -> Iterator[None]:
    """Python started inside executes the fault of its rank in the step after `after_step`."""
    (folder / "sitecustomize.py").write_text(
        "import os, signal, time\n"
        f"fault = {faults!r}.get(int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', -1))))\n"
        "if fault:\n"
        "    import torch\n"
        "    from pmexp.training.loop import Training\n"
        "    forward = Training.summed_loss\n"
        "    def faulty(training, *arguments):\n"
        f"        if training.progress.step == {after_step}: exec(fault)\n"
        "        return forward(training, *arguments)\n"
        "    Training.summed_loss = faulty\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        yield


def run_folder(folder: Path) -> Path:
    (config,) = folder.glob("default/*/config.yaml")
    return config.parent


def curve(folder: Path, metric: str) -> list[tuple[int, float]]:
    records = [record for record, _ in read_lines(run_folder(folder) / "journal.jsonl")]
    return [(record["step"], record["value"]) for record in records if record["metric"] == metric]


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_two_processes_train_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout: the gradient's terms are summed in another order, which is fp32 rounding. They meet in
    milliseconds: torch's dynamic rendezvous walks all sources of the launcher, by inspect.stack, for each event."""
    monkeypatch.delattr(inspect, "stack")
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["variant=pm-drop", "variant.p=0", "robustness.fgsm=0.05", *SHORT]
    assert Runs(one, capsys).train(*TINY_VIT, "tracking=off", *arguments)[0] == 0
    code, out, err = Runs(two, capsys).train(*TWO, *arguments)
    assert code == 0 and "summary.json" in out, err
    for metric in ("train/loss", "grad/norm", "val/loss", "val/accuracy", "test/loss", "fgsm/loss"):
        expected = curve(one, metric)
        assert [step for step, _ in curve(two, metric)] == [step for step, _ in expected]
        for (_, loss), (_, value) in zip(curve(two, metric), expected, strict=True):
            assert loss == pytest.approx(value, rel=1e-5), metric
    folder = run_folder(two)
    assert (folder / "rank1.txt").is_file() and (folder / "artifacts" / "updates.npz").is_file()
    assert not (folder / "failure.json").exists()


UNTIL_ASKED_TO_STOP = """
heard, before = [], signal.getsignal(signal.SIGTERM)
signal.signal(signal.SIGTERM, lambda *of, note=before, heard=heard: (note(*of), heard.append(of)))
os.kill(os.getppid(), signal.{})
while not heard:
    time.sleep(0.02)
"""


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The launcher gets SIGTERM while rank 1 is in its second step; the next one gets SIGKILL in the thirteenth.
    Its ranks notice and end with a checkpoint. It is started anew: in a fork of pytest's process the thread of
    torch's store may fault when a signal ends it."""
    arguments = [*TWO, "variant=pm-drop", "train.max_steps=20", "train.log_every=1", "checkpoint.every_s=0"]
    stopped, alone = tmp_path / "stopped", tmp_path / "alone"
    command = [sys.executable, "-m", "pmexp.train", *arguments, f"runs_dir={stopped}"]
    for number, after_step, code in (("SIGTERM", 1, 130), ("SIGKILL", 12, -signal.SIGKILL)):
        with faults_of_ranks({1: UNTIL_ASKED_TO_STOP.format(number)}, tmp_path, after_step):
            assert subprocess.run(command, timeout=300).returncode == code
        folder = RunFolder(run_folder(stopped))
        deadline = time.monotonic() + 60
        while folder.is_claimed() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert state_of(folder) is State.interrupted
        assert after_step < len(curve(stopped, "train/loss")) < 20
    assert Runs(stopped, capsys).train(*arguments)[0] == 0
    assert Runs(alone, capsys).train(*arguments)[0] == 0
    assert folder.owner()["attempt"] == 3
    assert_same_run(run_folder(stopped), run_folder(alone), ranks=True)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise ValueError('of rank 1')", "rank 1: ValueError: of rank 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1: Signal 9 (SIGKILL)"),
    ],
)
def test_a_rank_that_fails_is_named(fault: str, words: str, runs: Runs, tmp_path: Path) -> None:
    with faults_of_ranks({1: fault}, tmp_path):
        code, _, err = runs.train(*TWO, *SHORT)
    assert code == 1 and words in err.splitlines()[-1], err
    folder = run_folder(runs.folder)
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
    code, out, err = runs.train(*TWO, *SHORT)
    assert code == 0 and "summary.json" in out, err
    summary = read(run_folder(runs.folder) / "summary.json")
    assert summary["status"] == "oom" and "you tried to allocate" in summary["error"]


@pytest.mark.parametrize("at_once", [False, True], ids=["long before", "at once"])
def test_a_run_that_another_process_has_is_refused_and_left_as_it_is(
    at_once: bool, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before any rank starts, and by the ranks where both begin at once: a first look sees nothing."""
    folder = RunFolder(config(*TWO, *SHORT, f"runs_dir={runs.folder}").folder)
    if at_once:
        monkeypatch.setattr(RunFolder, "is_claimed", lambda _: False)
    else:
        monkeypatch.setattr(experiment, "launch", lambda *_: pytest.fail("ranks were started"))
    with folder.claimed():
        code, _, err = runs.train(*TWO, *SHORT)
        assert list(folder.path.iterdir()) == [folder._lock]
    assert code == 2 and "is being written by another process" in err and len(err.splitlines()) == 1


# Rank 0 is where no signal and no lost connection reaches it, as in a kernel of NCCL.
OUT_OF_MEMORY = {0: "time.sleep(600)", 1: "torch.empty(2**50)"}


def assert_ended_out_of_memory(folder: Path, within_s: float) -> None:
    summary = read(folder / "summary.json")
    assert summary["status"] == "oom"
    assert summary["error"].startswith("rank 1: RuntimeError") and "you tried to allocate" in summary["error"]
    assert time.time() - (folder / "summary.json").stat().st_mtime < within_s
    assert not (folder / "failure.json").exists()


def test_a_rank_out_of_memory_is_the_result_and_ends_all_at_once(runs: Runs, tmp_path: Path) -> None:
    with faults_of_ranks(OUT_OF_MEMORY, tmp_path):
        code, out, err = runs.train(*TWO, *SHORT)
    assert_ended_out_of_memory(run_folder(runs.folder), within_s=10)
    assert code == 0 and "summary.json" in out, err


def test_a_rank_out_of_memory_ends_all_where_srun_has_started_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pmexp.train", *TWO, *SHORT, f"runs_dir={tmp_path / 'runs'}"]
    job = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    with faults_of_ranks(OUT_OF_MEMORY, tmp_path):
        ranks = [
            ForkedPython(
                command,
                env=os.environ | job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            said = [rank.communicate(timeout=120)[1] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
    assert_ended_out_of_memory(run_folder(tmp_path / "runs"), within_s=10)
    # Rank 0 ends the run, and rank 1 lacked what a machine has.
    assert [rank.returncode for rank in ranks] == [1, 3]
    assert "rank 0 ends: rank 1: RuntimeError" in said[0].splitlines()[-1]
