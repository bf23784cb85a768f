"""The instruments inside real runs: they change nothing, keep apart, are recorded, and resume."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pmexp.measure import timing
from pmexp.measure.instruments import Instruments, NoInstruments
from pmexp.measure.profile import STEPS
from pmexp.measure.timing import WARMUP_STEPS, StepTimer
from small_runs import TINY_VIT, Runs

SHORT = [*TINY_VIT, "tracking=off", "train.log_every=1", "variant=pm-drop"]
ALL_OFF = [f"measure.{key}=false" for key in ("flops", "energy", "snapshot")] + ["measure.updates=[]"]


def only_folder(runs: Runs) -> Path:
    (folder,) = runs.run_folders()
    return folder


def artifacts(runs: Runs) -> set[str]:
    """Names of what was measured into files, without what every start leaves."""
    names = {file.name for file in (only_folder(runs) / "artifacts").iterdir()}
    return names - {"packages.txt", "source.diff"}


def test_measuring_changes_no_loss(runs: Runs, tmp_path: Path) -> None:
    off = Runs(tmp_path / "off", runs.capture)
    assert runs.train(*SHORT, "train.max_steps=11", "measure.profile=true", "measure.updates=[1,3]")[0] == 0
    assert off.train(*SHORT, "train.max_steps=11", *ALL_OFF)[0] == 0
    for metric in ("train/loss", "grad/norm", "test/loss"):
        assert runs.curve("pm-drop-s0", metric) == off.curve("pm-drop-s0", metric)
    assert artifacts(off) == set()
    unmeasured = off.summaries()["pm-drop-s0"]
    assert not [
        key for key in unmeasured["metrics"] if "flops" in key or key.startswith(("energy/", "profile/"))
    ]
    assert not unmeasured["environment"].keys() & {"peak_flops", "energy_source", "profile"}
    summary = runs.summaries()["pm-drop-s0"]
    assert summary["metrics"]["speed/flops_per_step"] > 0 and "speed/mfu" not in summary["metrics"]
    assert summary["metrics"]["profile/packing_share"] > 0
    said = {key: summary["environment"][key] for key in ("peak_flops", "energy_source", "profile")}
    assert said == {
        "peak_flops": "no peak known for cpu",
        "energy_source": "not measured: no NVML on cpu",
        "profile": "trace.json.gz",
    }
    assert artifacts(runs) == {"trace.json.gz", "updates.npz"}


def test_profiled_steps_are_not_timed_and_tflops_follow_from_the_median(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(timing, "seconds_now", lambda device: float(next(ticks)))  # a step takes a second
    steps = WARMUP_STEPS + STEPS + 2
    assert runs.train(*SHORT, f"train.max_steps={steps}", "measure.profile=true")[0] == 0
    # The last two are the beginning of the epoch, and the evaluation within it.
    assert next(ticks) == 1 + 2 * (steps - STEPS) + 2
    metrics = runs.summaries()["pm-drop-s0"]["metrics"]
    assert metrics["speed/tflops_per_s"] == metrics["speed/flops_per_step"] / 1e12


def test_mfu_leaves_out_what_checkpointing_repeats(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pmexp.measure import instruments

    monkeypatch.setattr(instruments, "peak_tflops", lambda device, precision: (2.0, f"{device} {precision}"))
    ticks = itertools.count()
    monkeypatch.setattr(timing, "seconds_now", lambda device: float(next(ticks)))
    for system, precision in (("checkpointing", "fp32"), ("bf16", "bf16")):
        runs.name = system
        arguments = [f"system={system}", f"name={system}", "train.max_steps=8"]
        assert runs.train(*SHORT, *arguments)[0] == 0
        summary = runs.summaries()["pm-drop-s0"]
        metrics, again = summary["metrics"], summary["metrics"].get("speed/recomputed_flops_per_step", 0.0)
        assert (again > 0) == (system == "checkpointing")
        assert metrics["speed/mfu"] == pytest.approx(
            (metrics["speed/flops_per_step"] - again) / 2e12, rel=1e-12
        )
        assert summary["environment"]["peak_flops"] == f"cpu {precision}"


def test_a_resumed_run_keeps_the_same_updates(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmexp.training import run as experiment

    whole = Runs(tmp_path / "whole", runs.capture)
    arguments = [*SHORT, "train.max_steps=8", "measure.updates=[1,2,5,8,100]"]
    assert whole.train(*arguments)[0] == 0
    train = experiment._train

    def stopped(training: Any, *others: Any) -> None:
        step, limit, stop = training.steps, 4, others[-1]

        def steps() -> Any:
            for number, metrics in step():
                stop.extend(["SIGTERM"] * (number == limit))
                yield number, metrics

        training.steps = steps
        train(training, *others)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "_train", stopped)
        assert runs.train(*arguments)[0] == 130
    assert runs.train(*arguments)[0] == 0
    assert "resumed at step 4" in (only_folder(runs) / "log.txt").read_text()
    kept = [np.load(only_folder(each) / "artifacts" / "updates.npz") for each in (whole, runs)]
    assert kept[0]["steps"].tolist() == kept[1]["steps"].tolist() == [1, 2, 5, 8]
    assert np.array_equal(kept[0]["updates"], kept[1]["updates"]) and kept[0]["updates"].any(1).all()
    assert kept[0]["updates"].shape == (4, 256) and kept[0]["updates"].dtype == np.float32


def test_what_cannot_be_measured_is_refused(runs: Runs) -> None:
    for arguments, said in (
        (["measure.nsight=true"], "measure.nsight: there is nothing to trace on cpu"),
        (["measure.nsight=true", "measure.profile=true"], "measure.profile and measure.nsight: both"),
        (["measure.updates=[0]"], "measure.updates: 0 must be at least 1"),
    ):
        code, _, err = runs.train(*SHORT, *arguments)
        assert code == 2 and said in err and len(err.strip().splitlines()) == 1
    assert not runs.run_folders()


def test_a_training_that_nobody_records_has_instruments_of_the_same_face() -> None:
    def face(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert face(NoInstruments) == face(Instruments)
    timer = StepTimer(torch.device("cpu"))
    with NoInstruments().step(1, 8, timer, settled=True):
        pass
    assert len(timer.seconds) == 1
