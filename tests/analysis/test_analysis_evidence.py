"""What runs are evidence of: one training or several, pairs of unlike machines, and models that never learned."""

import json
from typing import Any

import pytest

from evidence_runs import CRITERIA, MACHINE, PEAK, SCORE, STEP, compared, pairs, results, run
from pmexp.protocol import ComparedLabel
from pmexp.run_folder.warned import WARNED
from pmexp_analysis import plots
from pmexp_analysis.figures import of_section
from pmexp_analysis.pages.content import as_json
from pmexp_analysis.pages.document import as_markdown
from pmexp_analysis.pages.page import page_html
from run_folders import Runs


def test_without_a_fault_everything_passes_and_nothing_is_warned_of(runs: Runs) -> None:
    pairs(runs)
    report = runs.content()
    assert set(results(report).values()) == {"pass"}
    assert json.loads(as_json(report))["warnings"] == []


# --- one training

SAME = {"losses": [2.0, 1.5, 1.25]}


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        ({"losses": [2.0, 1.5, 1.25], "outcome": {"weights_sha256": "aa"}}, "identical"),
        ({"losses": [2.0, 1.5, 1.25], "outcome": {"weights_sha256": "ab"}}, "equal"),
        ({"losses": [2.0, 1.5, 1.25]}, "equal"),
        ({"losses": [2.0, 1.5000000000000002, 1.25], "outcome": {"weights_sha256": "aa"}}, "equal"),
        ({"losses": [2.0, 1.5], "outcome": {"weights_sha256": "aa"}}, "equal"),
        ({"losses": [], "outcome": {"weights_sha256": "aa"}}, "equal"),
    ],
)
def test_bit_for_bit_takes_every_loss_and_the_final_weights(
    runs: Runs, other: dict[str, Any], verdict: str
) -> None:
    for seed in range(3):
        run(runs, "baseline", seed, **SAME, outcome={"weights_sha256": "aa"})
        run(runs, "pm-drop", seed, **other)
    report = runs.content()
    assert compared(report)["pm-drop", SCORE].verdict == verdict
    assert compared(report)["pm-drop", "memory/mask_bytes"].verdict == "better"
    pages = [as_markdown(report), page_html(report, [], [])]
    assert [("bit for bit" in page) for page in pages] == [verdict == "identical"] * 2


def test_variants_of_one_training_are_counted_once(runs: Runs) -> None:
    """Three of them would else multiply Holm's family, and every p by three."""
    for seed in range(4):
        run(runs, "baseline", seed)
        for variant in ("pm-drop", "no-cache", "4bit"):
            score = 0.8 + (seed * seed) / 200
            run(runs, variant, seed, score, losses=[2.0, 1.5 + seed], outcome={"weights_sha256": f"{seed}"})
        run(runs, "2bit", seed, 0.85 + seed / 50)
    report = runs.content()
    by_variant = compared(report)
    once, other = by_variant["pm-drop", SCORE], by_variant["2bit", SCORE]
    assert once.paired_p is not None and other.paired_p is not None and once.holm_p is not None
    ordered = sorted([once.paired_p, other.paired_p])
    assert min(once.holm_p, other.holm_p or 1.0) == pytest.approx(min(1.0, 2 * ordered[0]))
    for variant in ("no-cache", "4bit"):
        one = by_variant[variant, SCORE]
        assert (one.holm_p, one.verdict) == (once.holm_p, once.verdict)
        assert "same training as pm-drop, counted once" in one.note
        assert "one training" not in by_variant[variant, STEP].note  # which is measured in each
    (said,) = json.loads(as_json(report))["one_training"]
    assert said.startswith("pm-drop, 4bit and no-cache trained identically in seeds 0, 1, 2 and 3: ")
    assert said in page_html(report, [], [])


def test_runs_that_differ_in_one_seed_are_two_trainings(runs: Runs) -> None:
    for seed in range(3):
        run(runs, "pm-drop", seed, **SAME)
        run(runs, "no-cache", seed, losses=[2.0, 1.5, 1.25 + (seed == 2)])
        run(runs, "baseline", seed)
    assert json.loads(as_json(runs.content()))["one_training"] == []


def test_one_seed_of_the_baselines_masks_is_one_training_with_it(runs: Runs) -> None:
    pairs(runs)
    run(runs, "same-masks", 1, losses=[2.0, 2.5], outcome={"weights_sha256": "aa"})
    report = runs.content()
    (said,) = json.loads(as_json(report))["one_training"]
    assert said.startswith("baseline and same-masks trained identically in seed 1") and "not recorded" in said


# --- pairs of unlike machines


@pytest.mark.parametrize(
    ("key", "value"),
    [("cpu", "Xeon"), ("threads", 2), ("device", "H100"), ("version_torch", "2.9.0"), ("version_pmexp", "0.2.0"),
     ("git_commit", "b" * 40), ("git_diff", "d" * 12), ("git_diff", None), ("dropout_backend", "reference"), ("threads", None),
     ("driver", "550.54"), ("data_workers", 8)],
)  # fmt: skip
def test_a_pair_of_unlike_machines_is_named_and_does_not_count_for_cost(
    runs: Runs, key: str, value: Any
) -> None:
    other = {**MACHINE, key: value} if value is not None else {k: v for k, v in MACHINE.items() if k != key}
    pairs(runs, environment=other)
    report = runs.content()
    assert results(report) == {
        "masks": "not measured", "memory": "not measured", "speed": "not measured", "quality": "pass",
        "finite": "pass",
    }  # fmt: skip
    for metric in (STEP, PEAK):
        one = compared(report)["pm-drop", metric]
        assert (one.verdict, one.n, one.note) == (
            "not comparable", 0, "3 pairs excluded: run under different conditions",
        )  # fmt: skip
    assert compared(report)["pm-drop", SCORE].n == 3
    (said,) = (line for line in report.warnings if "pm-drop" in line)
    own, theirs = (
        str(other.get(key, "none" if key == "git_diff" else "not recorded")),
        str(MACHINE.get(key, "not recorded")),
    )
    assert f"{key} {own[:12]}" in said and f"versus {theirs[:12]}" in said and "seeds 0, 1 and 2" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision", "bf16"),
        ("attention", "sdpa"),
        ("data_digest", "d2"),
        ("float32_matmul", "high"),
        ("float32_convolution", "float32"),
        ("deterministic", "yes"),
    ],
)
def test_other_data_or_precision_counts_for_no_metric(runs: Runs, key: str, value: str) -> None:
    pairs(runs, environment={**MACHINE, key: value})
    report = runs.content()
    assert results(report) == dict.fromkeys(CRITERIA, "not measured") | {"finite": "pass"}
    assert {one.n for one in report.comparisons} == {0}


def test_runs_from_before_their_arithmetic_was_recorded_are_paired_with_those_of_today(runs: Runs) -> None:
    today = {"float32_matmul": "highest", "float32_convolution": "tf32", "deterministic": "no"}
    pairs(runs, environment=MACHINE | today)
    assert compared(runs.content())["pm-drop", STEP].n == 3


@pytest.mark.parametrize("key", WARNED)
def test_what_runs_have_warned_of_is_said_first(runs: Runs, key: str) -> None:
    pairs(runs, environment=MACHINE | {key: "it is twice the loss"})
    run(runs, "baseline", 3, environment=MACHINE | {key: "it is twice the loss"})
    run(runs, "pm-drop", 3)
    (said,) = runs.content().warnings
    assert said == (
        f"net/digits, plain: baseline in seed 3; pm-drop in seeds 0, 1 and 2 warned ({key}): it is twice the loss."
    )


def test_one_unlike_pair_of_several_is_left_out_alone(runs: Runs) -> None:
    pairs(runs)
    run(runs, "baseline", 3)
    run(runs, "pm-drop", 3, environment=MACHINE | {"cpu": "Xeon"})
    report = runs.content()
    (speed,) = (one for one in report.criteria if one.name == "speed")
    assert speed.parts[0].n == 3 and "seed 3 excluded" in speed.why
    assert compared(report)["pm-drop", SCORE].n == 4


def test_precision_is_what_is_compared_where_systems_are(runs: Runs) -> None:
    protocol = {"axis": ComparedLabel.system.name, "baseline": "plain", "method": "bf16"}
    for seed in range(3):
        for system in ("plain", "bf16"):
            precision = {"precision": system, "attention": system}
            finals, losses = {SCORE: 0.9 + seed / 100}, [2.0, 1.0]
            told = {"environment": MACHINE | precision, "protocol": protocol}
            runs.finished("pm-drop", seed, finals, losses, system=system, **told)
    assert compared(runs.content())["bf16", SCORE].n == 3


def test_a_report_over_several_versions_says_so_first(runs: Runs) -> None:
    pairs(runs)
    for variant in ("baseline", "pm-drop"):
        other = {"version_torch": "2.9.0", "git_commit": "b" * 40, "git_diff": "d" * 12}
        run(runs, variant, 3, environment=MACHINE | other)
    report = runs.content()
    first = report.warnings[0]
    assert f"uncommitted changes {'c' * 12} (6 runs) and {'d' * 12} (2 runs)" in first
    assert "torch 2.13.0 (6 runs) and 2.9.0 (2 runs)" in first and "bbbbbbbbbbbb (2 runs)" in first
    assert as_markdown(report).splitlines()[2] == f"- {first}"
    page = page_html(report, [], [])
    assert page.index(first) < page.index('id="verdict"')
    assert results(report)["speed"] == "pass"  # each pair is of one version


def test_pairs_whose_environment_the_source_does_not_tell_are_said_to_be_unchecked(runs: Runs) -> None:
    pairs(runs)
    run(runs, "pm-drop", 3, environment={})
    run(runs, "baseline", 3)
    report = runs.content()
    (said,) = report.warnings
    assert said.startswith("The environment of 1 run of 8 is not recorded in this source")
    assert compared(report)["pm-drop", STEP].n == 4


def test_one_training_is_drawn_once_and_the_legend_names_all(runs: Runs) -> None:
    for seed in range(2):
        run(runs, "baseline", seed)
        for variant in ("pm-drop", "no-cache", "4bit"):
            run(runs, variant, seed, losses=[2.0, 1.75 + seed])
        run(runs, "2bit", seed)
    run(runs, "same-masks", 0, losses=[2.0, 1.5])  # the losses of the baseline
    report = runs.content()
    looks = plots.styles(report.variants, "baseline")
    drawn = {one.name: one.figure for one in of_section(report.experiment, report.sections[0], looks, "")}
    (panel,) = drawn["convergence"].axes
    assert len(panel.lines) == 3
    (legend,) = drawn["convergence"].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "baseline = same-masks", "2bit", "pm-drop = 4bit = no-cache",
    ]  # fmt: skip
    titles = [panel.get_title().partition("\n")[0] for panel in drawn["loss-difference"].axes]
    assert titles == ["2bit", "pm-drop = 4bit = no-cache", "same-masks"]


@pytest.mark.parametrize(
    ("key", "words"), [("cpu", "processor"), ("threads", "threads"), ("device", "device")]
)
def test_machines_that_both_sides_share_are_named_where_seeds_differ(
    runs: Runs, key: str, words: str
) -> None:
    """Each pair ran on one machine, and the means over seeds are of two."""
    pairs(runs)
    for variant in ("baseline", "pm-drop"):
        run(runs, variant, 3, environment={**MACHINE, key: "another"})
    report = runs.content()
    (said,) = report.warnings
    assert f"several machines: {words} " in said and "another (2 runs)" in said
    assert compared(report)["pm-drop", STEP].n == 4
