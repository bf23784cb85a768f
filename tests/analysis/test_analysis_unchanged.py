"""The criterion `unchanged`: by proof, from runs that draw the baseline's own masks."""

from typing import Any

import pytest

from pmexp.command.compose import compose
from pmexp_analysis.criteria import Judged, judge
from run_folders import Runs

PROTOCOL: dict[str, Any] = {
    "method": "pm-drop",
    "criteria": {"unchanged": compose([]).to_dict()["protocol"]["criteria"]["unchanged"]},
}
STOCK = {"variant.dropout": "stock", "variant.rng": "philox"}
TORCH = {"variant.dropout": "packed", "variant.rng": "torch", "variant.flip_rate": 0.0}
PHILOX = {**TORCH, "variant.rng": "philox"}
LOSSES = [2.0, 1.5, 1.25, 1.0]


def run(
    runs: Runs, variant: str, settings: dict[str, Any], losses: list[Any] = LOSSES, weights: str = "aa", **told: Any
) -> None:  # fmt: skip
    told = {"seed": 0, "environment": {"cpu": "EPYC"}} | told
    told["outcome"] = {"weights_sha256": weights, "chance": {"test/accuracy": 0.1}}
    score = {"test/accuracy": told.pop("score", 0.9)}
    runs.finished(variant, told.pop("seed"), score, losses, settings=settings, protocol=PROTOCOL, **told)


def unchanged(runs: Runs) -> Judged:
    (one,) = judge(runs.experiment(), [])
    return one


def test_one_seed_of_equal_losses_and_weights_passes(runs: Runs) -> None:
    run(runs, "baseline", STOCK)
    run(runs, "pm-drop", PHILOX, losses=[2.0, 1.0, 1.0, 1.0], weights="bb")
    run(runs, "pm-drop-same-masks", TORCH)
    one = unchanged(runs)
    assert (one.result, one.value, one.parts[0].n) == ("pass", 0.0, 1)
    assert one.why.startswith(
        "pm-drop-same-masks, seed 0: the losses of all 4 logged steps and the final weights equal"
    )


@pytest.mark.parametrize(
    ("losses", "weights", "said"),
    [
        ([2.0, 1.5, 1.2500000000000002, 1.0], "aa", "from step 3 on"),
        ([2.0, 1.5], "aa", "from step 3 on"),
        ([2.0, 1.5, None, 1.0], "aa", "from step 3 on"),
        (LOSSES, "bb", "its final weights differ"),
    ],
)
def test_the_first_difference_fails_and_is_named(
    runs: Runs, losses: list[Any], weights: str, said: str
) -> None:
    run(runs, "baseline", STOCK)
    run(runs, "same", TORCH, losses, weights)
    one = unchanged(runs)
    assert (one.result, one.value) == ("fail", 1.0) and said in one.why and "same, seed 0" in one.why


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("pm-drop", PHILOX), ("bit-flips", TORCH | {"variant.flip_rate": 0.05}), ("byte-mask", {"variant.dropout": "byte_mask"})],
)  # fmt: skip
def test_without_the_baselines_masks_it_is_not_settled(
    runs: Runs, variant: str, settings: dict[str, Any]
) -> None:
    run(runs, "baseline", STOCK)
    run(runs, variant, settings)
    one = unchanged(runs)
    assert one.result == "not measured"
    assert "not settled" not in one.why and "variant=pm-drop-same-masks" in one.why


def test_a_seed_without_its_baseline_is_not_settled(runs: Runs) -> None:
    run(runs, "baseline", STOCK)
    run(runs, "same", TORCH, seed=1)
    assert unchanged(runs).result == "not measured"


def test_a_baseline_of_other_masks_is_not_settled(runs: Runs) -> None:
    run(runs, "baseline", {"variant.dropout": "byte_mask"})
    run(runs, "same", TORCH)
    assert "does not draw the masks of nn.Dropout" in unchanged(runs).why


def test_equal_losses_without_weights_prove_nothing(runs: Runs) -> None:
    run(runs, "baseline", STOCK)
    run(runs, "same", TORCH, weights="")
    one = unchanged(runs)
    assert one.result == "inconclusive" and "final weights were not recorded" in one.why


def test_another_machine_may_differ_and_may_not_be_blamed_on_the_method(runs: Runs) -> None:
    run(runs, "baseline", STOCK)
    run(runs, "same", TORCH, losses=[2.0, 1.5, 1.25, 1.125], environment={"cpu": "Xeon"})
    one = unchanged(runs)
    assert one.result == "inconclusive" and "different conditions" in one.why


def test_equal_bits_on_two_machines_are_equal_all_the_same(runs: Runs) -> None:
    run(runs, "baseline", STOCK)
    run(runs, "same", TORCH, environment={"cpu": "Xeon"})
    assert unchanged(runs).result == "pass"


@pytest.mark.parametrize(
    ("losses", "score"), [([2.5] * 4, 0.9), (LOSSES, 0.1), ([2.0, 1.5, None, None], 0.9)]
)
def test_a_dead_or_diverged_model_proves_nothing(runs: Runs, losses: list[Any], score: float) -> None:
    for variant, settings in (("baseline", STOCK), ("same", TORCH)):
        run(runs, variant, settings, losses, score=score)
    assert unchanged(runs).result == "inconclusive"


def test_one_seed_of_the_proof_lacks_no_other(runs: Runs) -> None:
    for seed in range(3):
        run(runs, "baseline", STOCK, seed=seed)
    run(runs, "pm-drop", PHILOX, seed=0)
    run(runs, "same", TORCH, seed=0)
    missing = runs.experiment().missing
    assert [(one.variant, one.seed) for one in missing] == [("pm-drop", 1), ("pm-drop", 2)]


def test_one_different_seed_among_equal_ones_fails(runs: Runs) -> None:
    for seed in range(3):
        run(runs, "baseline", STOCK, seed=seed)
        run(runs, "same", TORCH, LOSSES if seed != 1 else [2.0, 1.0, 1.0, 1.0], seed=seed)
    one = unchanged(runs)
    assert one.result == "fail" and "same, seed 1" in one.why


def test_a_dead_run_of_the_method_is_no_objection_to_this_proof(runs: Runs) -> None:
    run(runs, "baseline", STOCK)
    run(runs, "pm-drop", PHILOX, score=0.05)  # no better than chance
    run(runs, "same", TORCH)
    one = unchanged(runs)
    assert one.result == "pass" and "never learned" not in one.why
