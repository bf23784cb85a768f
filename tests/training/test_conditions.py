"""A run that goes on under other conditions than it began with says so, and its speed is compared with none."""

import json
from pathlib import Path

import pytest
import torch

from disturbances import failing_machine
from evidence_runs import MACHINE, STEP, compared, pairs, run
from pmexp.measure.environment import environment
from pmexp.training import run as experiment
from pmexp.training.conditions import meet
from pmexp.training.progress import Progress
from run_folders import Runs as MadeUp
from small_runs import TINY_VIT, Runs

STEPS = [*TINY_VIT, "train.batch_size=64", "train.max_steps=8", "tracking=off", "checkpoint.every_s=0"]


def test_each_change_is_said_once_with_the_step_from_which_it_holds() -> None:
    progress = Progress()
    assert meet(progress, {"threads": 2, "cpu": "EPYC"}) == ""
    progress.step = 4
    assert meet(progress, {"threads": 2, "cpu": "EPYC", "host": "another"}) == ""
    assert meet(progress, {"threads": 1, "cpu": "EPYC"}) == "threads 1 in place of 2 from step 5 on"
    progress.step = 6
    assert meet(progress, {"threads": 1, "cpu": "Xeon"}) == "cpu Xeon in place of EPYC from step 7 on"
    assert len(progress.other_conditions) == 2


@pytest.mark.parametrize("threads", [0, 1])
def test_a_run_that_goes_on_with_other_threads_has_it_on_record(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    with failing_machine(checkpoint=4, last_step=6):
        assert runs.train(*STEPS)[0] == 3

    def elsewhere(device: torch.device) -> dict[str, str | int]:
        now = environment(device)
        return now | {"threads": int(now["threads"]) + threads}

    monkeypatch.setattr(experiment, "environment", elsewhere)
    assert runs.train(*STEPS)[0] == 0
    (folder,) = runs.run_folders()
    said = json.loads((folder / "summary.json").read_text())["environment"].get("other_conditions", "")
    assert ("from step 5 on" in said and "threads" in said) == bool(threads)
    assert ("goes on under other conditions" in (folder / "log.txt").read_text()) == bool(threads)


def test_runs_on_shared_cores_are_named(tmp_path: Path) -> None:
    made_up = MadeUp(tmp_path)
    pairs(made_up)
    assert made_up.content().warnings == []
    run(made_up, "baseline", 3, environment=MACHINE | {"shared_cores": "was ready and waited for a core 60%"})
    assert any(
        "times of 1 of 7 runs" in line and "baseline seed 3" in line for line in made_up.content().warnings
    )


def test_such_a_run_is_no_partner_for_speed(tmp_path: Path) -> None:
    made_up = MadeUp(tmp_path)
    pairs(made_up)
    for variant in ("baseline", "pm-drop"):
        told = {"other_conditions": "threads 1 in place of 2 from step 5 on"} if variant == "pm-drop" else {}
        run(made_up, variant, 3, environment=MACHINE | told)
    report = made_up.content()
    assert compared(report)["pm-drop", STEP].n == 3
    assert any("from step 5 on versus none" in line for line in report.warnings)
