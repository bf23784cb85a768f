"""Memory that does not suffice is a result: recorded, named, not tried again, and no failure of a sweep."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pmexp.measure.out_of_memory import MemoryHistory, is_out_of_memory
from pmexp.run_folder.found import find_runs
from pmexp.run_folder.state import State
from pmexp_analysis.sources.folders import load_runs
from small_runs import TINY_VIT, Runs

# One layer as wide as this has attention weights of 2**23 * 2**23 numbers: 256 TiB, past any address space.
ABSURD = ["model.architecture.hidden_size=8388608", "model.architecture.num_attention_heads=1"]
SHORT = ["train.max_steps=2", "tracking=off"]


def refusal(make: Any) -> BaseException:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        make()
    return caught.value


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(refusal(lambda: torch.empty(2**50)))
    assert is_out_of_memory(refusal(lambda: bytearray(2**50)))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory\nCompile with ..."))
    assert is_out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    assert not is_out_of_memory(refusal(lambda: torch.ones(2) @ torch.ones(3)))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: a message of somebody else"))


def starve(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step's batch asks the real allocator for 4 PiB."""
    from pmexp.training.loop import Training

    forward = Training.summed_loss

    def hungry(training: Training, *arguments: Any) -> Any:
        if training.progress.step == 1:
            torch.empty(2**50)
        return forward(training, *arguments)

    monkeypatch.setattr(Training, "summed_loss", hungry)


def test_in_a_step_what_was_measured_before_is_kept(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    starve(monkeypatch)
    code, out, _ = runs.train(*TINY_VIT, *SHORT)
    assert code == 0 and "summary.json" in out
    (folder,) = runs.run_folders()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "oom" and "you tried to allocate" in summary["error"]
    assert {"memory/saved_bytes", "memory/peak_bytes", "train/loss"} <= set(summary["metrics"])
    assert summary["environment"]["peak_memory_source"] and summary["replacement"]
    assert not (folder / "failure.json").exists()
    assert "Traceback" in (folder / "log.txt").read_text()
    written = (folder / "journal.jsonl").stat().st_mtime_ns
    assert runs.train(*TINY_VIT, *SHORT)[0] == 0  # a result: not tried again
    assert (folder / "journal.jsonl").stat().st_mtime_ns == written


STAGES = {  # between claim and summary, by what runs then
    "pmexp.training.run.Checkpoints.load",
    "pmexp.training.run.record_start",
    "pmexp.training.run._gradient_check",
    "pmexp.training.run._train",
    "pmexp.training.run.tested",
    "pmexp.training.run.final",
    "pmexp.training.run.prepare",
    "pmexp.training.run._instruments",
}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_at_every_stage_it_is_the_result(stage: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, lambda *_: torch.empty(2**50))
    code, out, _ = runs.train(*TINY_VIT, *SHORT)
    assert code == 0 and "summary.json" in out
    (folder,) = runs.run_folders()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "oom" and "you tried to allocate" in summary["error"]
    assert not (folder / "failure.json").exists()
    ((run,),) = [find_runs(runs.folder, "default")]
    assert (run.state, run.damage) == (State.oom, "")


def test_any_other_error_is_still_a_failure(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pmexp.training.loop import Training

    monkeypatch.setattr(Training, "summed_loss", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError):
        runs.train(*TINY_VIT, *SHORT)
    (folder,) = runs.run_folders()
    assert (folder / "failure.json").exists() and not (folder / "summary.json").exists()


@pytest.mark.slow
def test_a_sweep_names_it_and_does_not_fail(runs: Runs) -> None:
    """A model that is too large to build, beside one that fits."""
    small, large = "model.architecture.hidden_size=16", ABSURD[0]
    sweep = ["-m", *TINY_VIT, *SHORT, ABSURD[1], f"{small},{large.partition('=')[2]}"]
    for attempt in ("first", "again"):
        code, out, err = runs.train(*sweep)
        assert code == 0, err
        assert "out of memory: RuntimeError: " in out, attempt
        progress = (out + err).replace("\n", " ")
        assert attempt == "again" or re.search(
            r"-s0-\w+ model\.\S+ out of memory \(.* s; . of 2 in ", progress
        )
    assert "2 of them finished before" in out
    statuses = sorted(json.loads((f / "summary.json").read_text())["status"] for f in runs.run_folders())
    assert statuses == ["finished", "oom"]
    experiment = load_runs(runs.folder, "default")
    assert [run.why.partition(":")[0] for run in experiment.missing] == ["out of memory"]
    assert [member.run.finals is not None for member in experiment.members].count(True) == 1


@pytest.mark.slow
def test_mlflow_has_a_failed_run_that_says_why(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pmexp_analysis.sources.mlflow import load_mlflow

    with monkeypatch.context() as patch:
        starve(patch)
        assert runs.train(*TINY_VIT, "train.max_steps=2", "seed=1")[0] == 0
    assert runs.train(*TINY_VIT, "train.max_steps=2", "seed=0")[0] == 0
    experiment = load_mlflow(f"sqlite:///{runs.folder}/mlflow.db", "default")
    assert [(run.seed, run.why) for run in experiment.missing] == [(1, "out of memory, FAILED in MLflow")]


def test_on_cuda_the_allocators_history_is_recorded_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[Any] = []
    monkeypatch.setattr(
        torch.cuda.memory, "_record_memory_history", lambda enabled="all", **_: said.append(enabled)
    )
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda file: said.append(file))
    for device, expected in (("cpu", []), ("cuda", ["all", str(tmp_path / "memory_snapshot.pickle"), None])):
        history = MemoryHistory(torch.device(device))
        history.start()
        history.dump(tmp_path)
        history.stop()
        history.stop()
        assert said == expected
