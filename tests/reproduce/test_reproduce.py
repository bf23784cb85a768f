"""`python -m pmexp.reproduce`: what is chosen, what is said of the rest, and what is done with it."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hydra_plugins.pmexp_launchers import processes
from pmexp.command.schema import options
from pmexp.config import RunConfig
from pmexp.errors import SweepFailed
from pmexp.reproduce import command
from pmexp.reproduce.choice import START_S, STUDY
from pmexp.reproduce.command import main

MAIN = "experiments=exp-1-main-perf"
BOTH = "experiments=exp-1-main-perf,exp-1-bit-flips"
FEW = ["variant=pm-drop", "seed=0"]  # each run is composed
STEPS = 3 * (3668 // 32)  # TinyBERT takes so many on MRPC


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    """Keys under which a step of TinyBERT takes a second, and one of BERT-Base ten."""
    times = tmp_path / "times.json"
    times.write_text(json.dumps({"tinybert/mrpc at 128": 1e3, "bert-base/sst2 at 128": 1e4}))
    return [f"step_times={times}", f"runs_dir={tmp_path}", "gpus=1"]


def rows_of(page: str) -> dict[tuple[str, str, str], list[str]]:
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| exp-")]
    return {(line[0], line[1], line[3]): line for line in lines}


def test_every_experiment_of_the_study_is_chosen_from() -> None:
    assert sorted(STUDY) == sorted(set(options("experiment")) - {"demo"})


def test_the_plan_says_what_fits_and_why_the_rest_does_not(
    keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["variant=pm-drop,4bit", "seed=0", "task=tinybert-mrpc,bert-base-sst2"]
    assert main([MAIN, *few, *keys, "plan=true", "hours=1"]) == 0
    said = capsys.readouterr()
    assert said.err == "planning exp-1-main-perf (1 of 1) ...\n"
    page = said.out
    rows = rows_of(page)
    hours = (STEPS + 50 + 2 * START_S) / 3600  # 4bit shares the training of pm-drop
    tiny = ["exp-1-main-perf", "tinybert/mrpc", "2", "1", f"{hours:.2g}", "runs"]
    assert rows["exp-1-main-perf", "tinybert/mrpc", "1"] == tiny
    assert (
        rows["exp-1-main-perf", "bert-base/sst2", "1"][-1] == f"left out: {1 - hours:.2g} GPU-hours are left"
    )
    assert "1 h on 1 x NVIDIA A100-SXM4-80GB: 1 GPU-hours" in page


def test_what_needs_more_gpus_is_left_out(keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    stack = ["system=zero2", "system.processes=4", "task=tinybert-mrpc"]
    assert main([MAIN, *FEW, *stack, *keys, "plan=true", "hours=1"]) == 0
    ((*_, hours, why),) = rows_of(capsys.readouterr().out).values()
    assert (hours, why) == ("-", "left out: needs 4 GPUs, has 1")


def test_a_machine_without_what_is_needed_is_one_line(
    keys: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert main([MAIN, *FEW, *keys]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: hours: this machine has no CUDA GPU") and said.err.count("\n") == 1
    assert said.out == ""
    for wrong, message in (
        ("hours=0", "hours: '0' is not allowed"),
        ("experiments=demo", "experiments: 'demo' is unknown"),
        ("gpus=0", "gpus: '0' is no number of GPUs; allowed are 1, 2, ..."),
    ):
        others = [key for key in keys if not key.startswith(wrong[:4])]
        assert main([wrong, *others, "plan=true"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")


class Recorded:
    """A launcher that writes down what it gets; the first sweep fails."""

    def __init__(self) -> None:
        self.swept: list[tuple[str, list[str]]] = []
        self.at_once: list[str] = []

    def of(self, overrides: Sequence[str]) -> "Recorded":
        self.at_once += overrides
        return self

    def sweep(self, runs: Sequence[RunConfig]) -> None:
        self.swept.append((runs[0].name, [run.run_id for run in runs]))
        if len(self.swept) == 1:
            raise SweepFailed("one run did not finish")


def test_it_goes_on_past_a_failure_and_ends_with_the_reports(
    keys: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What executes runs and makes reports has tests of its own."""
    recorded, reports, checked = Recorded(), [], []
    monkeypatch.setattr(command, "launcher", recorded.of)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(processes, "preload", lambda: None)
    monkeypatch.setattr(processes, "check", lambda runs: checked.append(len(runs)))
    monkeypatch.setattr(subprocess, "run", lambda line, **_: reports.append(line[4:]))
    card = "card=NVIDIA A100-SXM4-80GB"
    two = ["gpus=2", *(key for key in keys if not key.startswith("gpus"))]
    assert main([BOTH, *FEW, "task=tinybert-mrpc", *two, card, "hours=1"]) == 1
    assert [name for name, _ in recorded.swept] == ["exp-1-main-perf", "exp-1-bit-flips"]
    assert checked == [sum(len(ids) for _, ids in recorded.swept)]
    assert recorded.at_once == ["hydra.launcher.n_jobs=2"] * 2
    runs_dir = next(key for key in keys if key.startswith("runs_dir"))
    assert reports == [["exp-1-main-perf", runs_dir], ["exp-1-bit-flips", runs_dir]]
    assert "one run did not finish" in capsys.readouterr().err


def test_in_small_it_runs_the_small_form(
    keys: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded()
    swept: list[Any] = recorded.swept
    swept.append("so that no sweep fails")
    monkeypatch.setattr(command, "launcher", recorded.of)
    monkeypatch.setattr(processes, "preload", lambda: None)
    monkeypatch.setattr(processes, "check", lambda runs: None)
    monkeypatch.setattr(subprocess, "run", lambda line, **_: None)
    assert main([BOTH, "task=tinybert-mrpc", *FEW, *keys, "smoke=true"]) == 0
    assert [name for name, _ in recorded.swept[1:]] == ["exp-1-main-perf-smoke", "exp-1-bit-flips-smoke"]
