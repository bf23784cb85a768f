"""One run on real data, through the command line: its folder, its record, and training left unchanged."""

import json
import math
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pmexp.errors import MachineError
from pmexp.measure.peak_memory import PeakMemory
from pmexp.models.examples import TensorExamples
from pmexp.training import after_training
from pmexp.training import run as training_run
from pmexp.variants import replace as variants
from pmexp_analysis.criteria import judge
from pmexp_analysis.sources.folders import load_runs
from small_runs import TINY_BERT, TINY_VIT, Runs

SHORT = ["train.max_steps=8", "train.log_every=1", "tracking=off"]
CONTRACT = {
    "train/loss", "val/loss", "val/accuracy", "test/accuracy", "memory/saved_bytes", "memory/mask_bytes",
    "memory/mask_bytes_per_element", "memory/peak_bytes", "memory/peak_tensor_bytes", "memory/mean_tensor_bytes",
    "inference/ms_per_sample", "inference/peak_tensor_bytes", "speed/data_wait_ms", "speed/data_wait_share",
    "speed/step_ms", "speed/samples_per_s",
    "speed/tokens_per_s", "grad/norm", "memory/parameters_bytes", "memory/gradients_bytes",
    "memory/optimizer_bytes", "check/gradient_error",
}  # fmt: skip


def test_the_folder_of_a_run_keeps_its_contract(runs: Runs) -> None:
    code, out, _ = runs.train(*TINY_VIT, *SHORT, "variant=pm-drop")
    assert code == 0
    (folder,) = runs.run_folders()
    assert str(folder / "summary.json") in out
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml", "journal.jsonl", "checkpoints", "artifacts", "log.txt", "summary.json",
    }  # fmt: skip
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert all(set(record) == {"metric", "value", "unit", "direction", "step", "time"} for record in records)
    assert [r["step"] for r in records if r["metric"] == "train/loss"] == list(range(1, 9))
    summary = json.loads((folder / "summary.json").read_text())
    reached = summary["metrics"]
    assert out.splitlines()[-2] == (
        f"test accuracy {reached['test/accuracy']:.4g}, test loss {reached['test/loss']:.4g}, "
        f"peak memory {reached['memory/peak_bytes'] / 2**20:,.0f} MiB, "
        f"{reached['speed/samples_per_s']:,.4g} samples/s"
    )
    assert (summary["status"], summary["run_id"]) == ("finished", folder.name)
    assert set(summary["metrics"]) >= CONTRACT
    assert summary["metrics"]["memory/mask_bytes_per_element"] == pytest.approx(0.125, abs=1e-3)
    assert summary["environment"]["dropout_backend"] and summary["environment"]["peak_memory_source"]
    assert summary["replacement"]["functions"] == ["vit.layers.0.attention"]
    assert summary["replacement"]["settled"] and summary["replacement"]["uncalled"] == []
    assert "unnamed_masks" not in summary["environment"]
    assert set(summary["outcome"]["chance"]) == {"val/accuracy", "test/accuracy"}
    assert summary["outcome"]["samples"] == {"val": 144, "test": 360}
    assert 0.1 <= summary["outcome"]["chance"]["test/accuracy"] < 0.15  # ten digits, about as frequent
    assert summary["environment"]["version_pmexp"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["variant"]["name"] == "pm-drop"
    assert "PackedDropout in place of" in (folder / "log.txt").read_text()


def test_the_peak_of_training_is_not_that_of_the_test(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record calls it the peak while training, of which a test that needs more is no part."""
    more = 2**30

    def hungry(*args: Any) -> Any:
        _ = torch.ones(more // 4)
        return after_training.tested(*args)

    monkeypatch.setattr(training_run, "tested", hungry)
    assert runs.train(*TINY_VIT, "train.max_steps=1", "tracking=off")[0] == 0
    (summary,) = runs.summaries().values()
    assert "while training" in summary["environment"]["peak_memory_source"]
    now = PeakMemory(torch.device("cpu"))
    assert summary["metrics"]["memory/peak_bytes"] < now.bytes() + more // 2


def test_a_mask_that_no_report_names_is_said_by_the_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_dropout = variants.replace_dropout

    def forgetful(*args: Any, **kwargs: Any) -> Any:
        report = replace_dropout(*args, **kwargs)
        report.left.clear()
        return report

    monkeypatch.setattr(variants, "replace_dropout", forgetful)
    arguments = ["train.max_steps=1", "tracking=off", "variant=pm-drop", "model.attention=sdpa"]
    assert runs.train(*TINY_VIT, *arguments, "variant.where=hidden")[0] == 0
    said = runs.summaries()["pm-drop-s0"]["environment"]["unnamed_masks"]
    assert said.startswith("vit.layers.0.attention: ") and "sdpa_attention.py:" in said
    (folder,) = runs.run_folders()
    assert f"masks that no report names: {said}" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("system", ["plain", "fp16"])
def test_a_diverged_run_goes_on_to_its_end_and_says_so(system: str, runs: Runs) -> None:
    """Under fp16 too, where no later step is taken: its gradient is not finite."""
    assert runs.train(*TINY_VIT, *SHORT, "variant=pm-drop", f"system={system}", "train.lr=1e20")[0] == 0
    summary, losses = runs.summaries()["pm-drop-s0"], runs.curve("pm-drop-s0", "train/loss")
    assert [step for step, _ in losses] == list(range(1, 9))
    assert losses[0][1] is not None and losses[-1][1] is None
    assert summary["status"] == "finished"
    assert [summary["metrics"][name] for name in ("train/loss", "val/loss", "test/loss")] == [None] * 3


def test_a_finished_run_is_not_run_again(runs: Runs) -> None:
    runs.train(*TINY_VIT, *SHORT)
    (folder,) = runs.run_folders()
    before = (folder / "journal.jsonl").stat().st_mtime_ns
    assert runs.train(*TINY_VIT, *SHORT)[0] == 0
    assert (folder / "journal.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("model", [TINY_VIT, TINY_BERT], ids=["digits", "reuters-r8"])
def test_training_is_unchanged_bit_for_bit(model: list[str], runs: Runs, few_news: str) -> None:
    """With nn.Dropout's own masks, packing them changes no loss and no gradient norm, on any step."""
    data = [few_news] if model is TINY_BERT else []
    for variant in (["variant=baseline"], ["variant=pm-drop-same-masks"]):
        assert runs.train(*model, *data, *SHORT, *variant)[0] == 0
    for metric in ("train/loss", "grad/norm", "val/loss", "test/loss"):
        packed, stock = (runs.curve(name, metric) for name in ("pm-drop-same-masks-s0", "baseline-s0"))
        assert packed == stock and packed
    outcomes = [runs.summaries()[name]["outcome"] for name in ("baseline-s0", "pm-drop-same-masks-s0")]
    assert outcomes[0] == outcomes[1] and len(outcomes[0]["weights_sha256"]) == 64
    (unchanged,) = (one for one in judge(load_runs(runs.folder, "default"), []) if one.name == "unchanged")
    assert (
        unchanged.value == 0.0
        and "the losses of all 8 logged steps and the final weights equal" in unchanged.why
    )
    masks = [
        runs.summaries()[n]["metrics"]["memory/mask_bytes_per_element"]
        for n in ("baseline-s0", "pm-drop-same-masks-s0")
    ]
    assert masks[0] == 4.0 and masks[1] == pytest.approx(0.125, abs=1e-3)


def test_hooks_train_as_byte_masks_do_bit_for_bit(runs: Runs) -> None:
    for variant in ("byte-mask", "hooks"):
        assert runs.train(*TINY_VIT, *SHORT, f"variant={variant}")[0] == 0
    for metric in ("train/loss", "grad/norm", "test/loss"):
        assert runs.curve("hooks-s0", metric) == runs.curve("byte-mask-s0", metric)
    byte_masks, hooks = (runs.summaries()[f"{name}-s0"] for name in ("byte-mask", "hooks"))
    assert hooks["replacement"]["by"] == "ByteMaskDropout under pack_saved_masks"
    assert hooks["replacement"]["functions"] == byte_masks["replacement"]["functions"]
    saved, of_masks = (
        [each["metrics"][f"memory/{name}"] for each in (byte_masks, hooks)]
        for name in ("saved_bytes", "mask_bytes")
    )
    assert saved[0] - saved[1] == of_masks[0] - of_masks[1] > 0.8 * of_masks[0]


def test_weights_of_another_seed_have_another_digest(runs: Runs) -> None:
    for seed in (0, 1):
        assert runs.train(*TINY_VIT, *SHORT, f"seed={seed}", "train.max_steps=1")[0] == 0
    first, second = (runs.summaries()[f"baseline-s{seed}"]["outcome"] for seed in (0, 1))
    assert first["weights_sha256"] != second["weights_sha256"] and first["chance"] == second["chance"]


def test_the_same_command_twice_gives_the_same_losses(runs: Runs, tmp_path: Path) -> None:
    again = Runs(tmp_path / "again", runs.capture)
    for each in (runs, again):
        assert each.train(*TINY_VIT, *SHORT, "variant=pm-drop")[0] == 0
    assert runs.curve("pm-drop-s0", "train/loss") == again.curve("pm-drop-s0", "train/loss")


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("baseline", 4.0),
        ("byte-mask", 1.0),
        ("4bit", 0.5),
        ("pm-drop-recompute", 0.125),
        ("bit-flips", 0.125),
        ("2bit", 0.25),
        ("pm-drop", 0.125),
        ("no-cache", 0.125),
        ("hooks", 0.125),
    ],
)
def test_mask_bytes_an_element(variant: str, expected: float, runs: Runs) -> None:
    arguments = [a for a in TINY_VIT if "hidden_size" not in a]
    assert runs.train(*arguments, "train.max_steps=1", "tracking=off", f"variant={variant}")[0] == 0
    assert runs.summaries()[f"{variant}-s0"]["metrics"]["memory/mask_bytes_per_element"] == expected


def test_the_record_says_how_many_operands_the_first_backward_made_again(runs: Runs) -> None:
    chosen = ("train.max_steps=1", "tracking=off", "variant=pm-drop-recompute")
    assert runs.train(*TINY_VIT, *chosen)[0] == 0
    (summary,) = runs.summaries().values()
    assert summary["replacement"]["rebuilt_equal"] == summary["metrics"]["memory/recomputed_products"] > 0


@pytest.mark.parametrize("variant", ["attention-only", "hidden-only"])
def test_variants_of_one_place_leave_the_other_stock(variant: str, runs: Runs) -> None:
    assert runs.train(*TINY_VIT, "train.max_steps=1", "tracking=off", f"variant={variant}")[0] == 0
    summary = runs.summaries()[f"{variant}-s0"]
    assert 0.125 < summary["metrics"]["memory/mask_bytes_per_element"] < 4.0
    assert set(summary["replacement"]["left"].values()) == {f"where={variant.removesuffix('-only')}"}


@pytest.mark.parametrize("system", ["bf16", "checkpointing"])
def test_systems_compose_with_packed_masks(system: str, runs: Runs) -> None:
    for name in ("plain", system):
        arguments = [f"system={name}", "variant=pm-drop", f"name={name}"]
        assert runs.train(*TINY_VIT, *SHORT, *arguments)[0] == 0
    metrics = {}
    for name in ("plain", system):
        runs.name = name
        metrics[name] = runs.summaries()["pm-drop-s0"]["metrics"]
        metrics[name]["losses"] = [loss for _, loss in runs.curve("pm-drop-s0", "train/loss")]
    assert metrics[system]["memory/saved_bytes"] < 0.8 * metrics["plain"]["memory/saved_bytes"]
    if system == "checkpointing":  # recomputation draws the same masks: not a bit differs
        assert metrics[system]["losses"] == metrics["plain"]["losses"]
    else:
        assert metrics[system]["losses"][0] == pytest.approx(metrics["plain"]["losses"][0], rel=2**-7)


def test_the_best_weights_are_tested_and_their_validation_is_reported(runs: Runs) -> None:
    code, _, _ = runs.train(*TINY_VIT, "train.epochs=4", "train.lr=0.02", "tracking=off", "train.patience=1")
    assert code == 0
    summary = runs.summaries()["baseline-s0"]
    curve = [value for _, value in runs.curve("baseline-s0", "val/accuracy")]
    assert summary["metrics"]["val/accuracy"] == max(curve)
    assert math.isfinite(summary["metrics"]["test/accuracy"])


@pytest.mark.parametrize(("patience", "said"), [("1", True), ("2", False)])
def test_a_run_that_ends_before_its_last_step_says_why(
    runs: Runs, caplog: pytest.LogCaptureFixture, patience: str, said: bool
) -> None:
    # At such a learning rate no score after the first is better.
    still = ("train.epochs=3", "train.lr=1e-12", "train.evaluate_every=null", "tracking=off")
    with caplog.at_level("INFO"):
        code, _, _ = runs.train(*TINY_VIT, *still, f"train.patience={patience}")
    assert code == 0
    assert ("no better score within train.patience=1 evaluations" in caplog.text) is said
    assert ("stopped at step" in caplog.text) is said


@pytest.mark.parametrize(
    ("error", "traced"), [(MachineError("a worker is gone"), False), (OSError(5, "?"), True)]
)
def test_a_fault_of_the_machine_that_has_its_line_has_no_traceback(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, error: Exception, traced: bool
) -> None:
    from pmexp.training.evaluating import Evaluator

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Evaluator, "evaluate", fails)
    with suppress(MachineError, OSError):
        runs.train(*TINY_VIT, *SHORT)
    (folder,) = runs.run_folders()
    assert json.loads((folder / "failure.json").read_text())["kind"] == "infrastructure"
    log = (folder / "log.txt").read_text()
    assert ("Traceback" in log) is traced
    assert re.fullmatch(
        r"[\d-]+ [\d:,]+ ERROR infrastructure: .*" + re.escape(str(error)), log.splitlines()[-1]
    )


def test_a_code_error_is_recorded_and_the_next_try_starts_anew(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmexp.training.evaluating import Evaluator

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.train(*TINY_VIT, *SHORT)
    (folder,) = runs.run_folders()
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["status"] == "failed" and failure["error"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in Path(failure["log"]).read_text()
    assert not (folder / "summary.json").exists()
    assert runs.train(*TINY_VIT, *SHORT)[0] == 0
    assert not (folder / "failure.json").exists()
    assert [step for step, _ in runs.curve("baseline-s0", "train/loss")] == list(range(1, 9))


def test_a_run_in_use_is_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pmexp.training.evaluating import Evaluator

    second: list[tuple[int, str, str]] = []

    def start_again(evaluator: Evaluator, *args: object) -> dict[str, float]:
        monkeypatch.undo()
        second.append(runs.train(*TINY_VIT, *SHORT))
        return evaluator.evaluate(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "evaluate", start_again)
    assert runs.train(*TINY_VIT, *SHORT)[0] == 0
    assert second[0][0] == 2 and "is being written by another process" in second[0][2]


def test_a_run_that_waits_for_its_data_says_so(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = TensorExamples.batch

    def slow(*arguments: Any) -> Any:
        time.sleep(0.02)
        return batch(*arguments)

    monkeypatch.setattr(TensorExamples, "batch", slow)
    assert runs.train(*TINY_VIT, "train.max_steps=8", "tracking=off")[0] == 0
    summary = runs.summaries()["baseline-s0"]
    assert (
        0.02 < summary["metrics"]["speed/data_wait_share"] < 1 < 20 < summary["metrics"]["speed/data_wait_ms"]
    )
    assert summary["environment"]["data_wait"].startswith("waited for data ")
    assert summary["environment"]["data_workers"] == 0
    (folder,) = runs.run_folders()
    assert f"this run {summary['environment']['data_wait']}" in (folder / "log.txt").read_text()
