"""What a report must not say of runs that are left: those that diverged, failed or are to come were not better."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evidence_runs import PEAK, SCORE, STEP, pairs, results, run
from pmexp.run_folder.journal import digest_of_journal
from pmexp_analysis.sources.folders import load_runs
from run_folders import Runs


def diverged(runs: Runs) -> None:
    run(runs, "pm-drop", 3)
    change(runs, "pm-drop", 3, lambda summary: summary["metrics"].update({SCORE: None}))


def failed(runs: Runs) -> None:
    runs.unfinished("pm-drop", 3, failure={"status": "failed", "error": "RuntimeError: no number"})


def out_of_memory(runs: Runs) -> None:
    runs.out_of_memory("pm-drop", 3)


def change(runs: Runs, variant: str, seed: int, edit: Callable[[dict[str, Any]], None]) -> Path:
    file = runs.folder / f"net-digits-{variant}-{seed}" / "summary.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("lose", "state", "held"),
    [
        (diverged, "diverged", {"masks", "memory", "speed"}),
        (failed, "failed", {"masks", "memory", "speed"}),
        (out_of_memory, "out of memory", {"speed"}),
    ],
)
def test_no_score_passes_by_the_runs_that_are_left(
    runs: Runs, lose: Callable[[Runs], None], state: str, held: set[str]
) -> None:
    pairs(runs)
    run(runs, "baseline", 3)
    lose(runs)
    report = runs.content()
    by_name = results(report)
    assert {name for name, result in by_name.items() if result == "pass"} == held
    assert by_name["quality"] == "inconclusive"
    assert next(one.why for one in report.criteria if one.name == "quality").endswith(
        f"but pm-drop has no such value in seed 3: {state}"
    )
    assert [line for line in report.warnings if "1 run of pm-drop has no result" in line and state in line]


def test_a_run_that_failed_and_was_done_again_is_not_lost(runs: Runs) -> None:
    pairs(runs)
    runs.unfinished("pm-drop", 2, failure={"status": "failed", "error": "RuntimeError: no number"})
    assert results(runs.content())["quality"] == "pass"
    assert runs.content().warnings == []


@pytest.mark.parametrize("metric", ["memory/mask_bytes", STEP, PEAK])
def test_no_claim_passes_by_the_values_that_are_finite(runs: Runs, metric: str) -> None:
    pairs(runs)
    run(runs, "baseline", 3)
    run(runs, "pm-drop", 3)
    assert set(results(runs.content()).values()) == {"pass"}
    change(runs, "pm-drop", 3, lambda summary: summary["metrics"].update({metric: None}))
    open_claims = {one.metric: one.why for one in runs.content().criteria if one.result != "pass"}
    assert open_claims.keys() == {metric}
    assert open_claims[metric].endswith("but pm-drop has no such value in seed 3: not finite")


@pytest.mark.parametrize(("metric", "is_open"), [(STEP, True), ("memory/mask_bytes", False)])
def test_no_claim_passes_by_the_runs_that_recorded_a_value(runs: Runs, metric: str, is_open: bool) -> None:
    """A count is whole in one run, and what is measured is not."""
    pairs(runs)
    run(runs, "baseline", 3)
    run(runs, "pm-drop", 3)
    change(runs, "pm-drop", 3, lambda summary: summary["metrics"].pop(metric))
    open_claims = {one.metric: one.why for one in runs.content().criteria if one.result != "pass"}
    assert open_claims.keys() == ({metric} if is_open else set())
    assert not is_open or open_claims[metric].endswith("in seed 3: not recorded")


@pytest.mark.parametrize("variant", ["baseline", "pm-drop"])
def test_a_score_elsewhere_that_is_not_finite_has_diverged(runs: Runs, variant: str) -> None:
    pairs(runs)
    change(runs, variant, 2, lambda summary: summary["metrics"].update({"ood/accuracy": None}))
    report = runs.content()
    assert results(report)["finite"] == ("fail" if variant == "pm-drop" else "pass")
    assert [f"1 run of {variant} has no result" in line for line in report.warnings] == [True]


@pytest.mark.parametrize(("is_planned", "result"), [(True, "pass"), (False, "inconclusive")])
def test_a_seed_of_the_baseline_alone_holds_scores_up_unless_a_plan_says_so(
    runs: Runs, is_planned: bool, result: str
) -> None:
    """A removed folder is no way to drop a seed of the method."""
    pairs(runs)
    run(runs, "baseline", 3)
    if is_planned:
        runs.plan(("net-digits-baseline-3", "baseline", 3))
    report = runs.content()
    assert {name: results(report)[name] for name in ("quality", "finite")} == {
        "quality": result,
        "finite": result,
    }
    assert results(report)["speed"] == "pass"
    said = "seed 3: not planned" if is_planned else "seed 3: no run"
    assert [said in line for line in report.warnings] == [True]


@pytest.mark.parametrize(
    ("is_planned", "stream", "missing"), [(False, None, [1, 2]), (True, None, []), (False, 1, [])]
)
def test_a_variant_beside_the_claim_lacks_no_seed_that_was_not_asked_for(
    runs: Runs, is_planned: bool, stream: int | None, missing: list[int]
) -> None:
    """The plan says what was asked for; the control of masks, known by its stream, needs one seed alone."""
    pairs(runs)
    run(runs, "other", 0, settings={"variant.mask_stream": stream})
    if is_planned:
        runs.plan(*((f"net-digits-baseline-{seed}", "baseline", seed) for seed in range(3)))
    assert [one.seed for one in runs.experiment().missing] == missing


@pytest.mark.parametrize("copied", ["baseline", "pm-drop"])
def test_one_training_under_two_seeds_is_one_sample(runs: Runs, copied: str) -> None:
    for seed in range(4):
        for variant in ("baseline", "pm-drop"):
            of = 2 if seed == 3 and variant == copied else seed
            same = {"losses": [2.0, 1.25 + of], "outcome": {"weights_sha256": f"{of}"}}
            run(runs, variant, seed, 0.9 + of / 100 + (variant == "pm-drop") * of**2 / 1e4, **same)
    report = runs.content()
    assert results(report)["quality"] == "inconclusive"
    assert results(report)["speed"] == "pass"  # measured anew
    assert [f"{copied} trained identically in seeds 2 and 3" in line for line in report.warnings] == [True]


def test_a_copied_run_is_no_second_measurement_of_speed(runs: Runs) -> None:
    for seed in range(4):
        for variant in ("baseline", "pm-drop"):
            of = min(seed, 2)
            run(runs, variant, seed, outcome={"weights_sha256": f"{of}"}, losses=[2.0, 1.25 + of])
    for variant in ("baseline", "pm-drop"):
        original = json.loads((runs.folder / f"net-digits-{variant}-2" / "summary.json").read_text())
        change(runs, variant, 3, lambda summary, told=original: summary.update(metrics=told["metrics"]))
    assert results(runs.content())["speed"] == "inconclusive"


def test_a_summary_whose_value_is_not_its_journals_is_damaged(runs: Runs, line: Callable[..., str]) -> None:
    """What the journal's digest holds together, an edited summary must not say otherwise."""
    pairs(runs)
    for step, summary in ((5.0, 5.0), (5.0, 1.0)):
        folder = runs.folder / "net-digits-pm-drop-2"
        lines = [line("train/loss", 2.0, 1), line("val/accuracy", 0.9, 1), line("val/accuracy", 0.8, 2)]
        content_now = "".join([*lines, line(STEP, step, 2)]).encode()
        (folder / "journal.jsonl").write_bytes(content_now)
        digest = digest_of_journal(content_now)
        metrics = {STEP: summary, "val/accuracy": 0.9, "train/loss": 2.0}
        told = {"metrics": metrics, "journal": {"bytes": digest.bytes, "blake2b": digest.blake2b}}
        change(runs, "pm-drop", 2, lambda content, told=told: content.update(told))
        missing = load_runs(runs.root, "demo").missing
        assert [(one.seed, "its speed/step_ms is not" in one.why) for one in missing] == [(2, True)] * (
            summary == 1.0
        )
