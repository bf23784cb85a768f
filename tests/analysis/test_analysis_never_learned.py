"""A model that never learned, or had too few steps to learn, proves nothing and is named."""

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
import yaml

from evidence_runs import CRITERIA, MACHINE, SCORE, STEP, pairs, results, run
from pmexp.command.compose import compose
from pmexp.command.schema import conf_folder
from pmexp.protocol import Bound, CriterionConfig, Statistic
from pmexp_analysis.numbers.learned import near_chance
from pmexp_analysis.numbers.trainings import Logged
from pmexp_analysis.pages.content import content_of
from pmexp_analysis.pages.document import as_markdown
from run_folders import Runs

CHANCE = {"chance": {SCORE: 0.125}}


@pytest.mark.parametrize(
    ("score", "told", "said"),
    [
        (0.0046, {"outcome": CHANCE}, "test accuracy 0.0046 is no better than 0.125"),
        (0.125, {"outcome": CHANCE}, "test accuracy 0.125 is no better than 0.125"),
        (0.9, {"losses": [2.5, 2.5, 2.5]}, "its loss is 2.5 at every logged step"),
    ],
)
def test_a_model_that_never_learned_is_named_and_passes_nothing(
    runs: Runs, score: float, told: dict[str, Any], said: str
) -> None:
    for seed in range(3):
        run(runs, "baseline", seed, score, **told)
        run(runs, "pm-drop", seed, score, **told)
    report = runs.content()
    assert "pass" not in results(report).values()
    for variant in ("baseline", "pm-drop"):
        (line,) = (line for line in report.warnings if f": {variant} never learned" in line)
        assert said in line and line in as_markdown(report)


def test_one_dead_run_among_others_is_enough(runs: Runs) -> None:
    pairs(runs, outcome=CHANCE)
    run(runs, "baseline", 3)
    run(runs, "pm-drop", 3, 0.1)  # chance is known by the other runs of the task
    report = runs.content()
    assert "pass" not in results(report).values()
    assert any("pm-drop never learned in seed 3" in line for line in report.warnings)


def test_a_gradient_of_zero_is_no_training(runs: Runs, line: Any) -> None:
    pairs(runs)
    path = runs.finished("baseline", 3, {SCORE: 0.9}, losses=[2.0, 1.5], environment=MACHINE)
    with (path / "journal.jsonl").open("a") as journal:
        journal.writelines(line("grad/norm", 0.0, step) for step in (1, 2))
    assert any("its gradient was zero" in line for line in runs.content().warnings)


def test_a_model_that_is_better_than_chance_in_one_score_has_learned(runs: Runs) -> None:
    """All samples in one class give F1 of 0.81 on MRPC, and a model may learn without reaching that."""
    for seed in range(3):
        chance = {"chance": {SCORE: 0.68, "test/f1": 0.81}}
        for variant in ("baseline", "pm-drop"):
            finals = {SCORE: 0.7, "test/f1": 0.8}
            runs.finished(variant, seed, finals, losses=[2.0, 1.0], outcome=chance)
    assert runs.content().warnings == []


# The first step learns how frequent classes are.
STUCK = [2.4, 2.31, 2.30, 2.33, 2.29, 2.31, 2.32, 2.30, 2.31, 2.30]
FALLING = [2.4, 2.38, 2.35, 2.36, 2.33, 2.32, 2.30, 2.31, 2.28, 2.27]


@pytest.mark.parametrize(
    ("score", "losses", "samples", "is_dead"),
    [
        (0.128, STUCK, 360, True),
        (0.15, STUCK, 360, True),  # 54 right answers or more: in 9 % of models that know nothing
        (0.16, STUCK, 360, False),  # 58 or more: in 3 %
        (0.128, STUCK, 100_000, False),
        (0.128, FALLING, 360, False),
        (0.128, STUCK[:7], 360, False),  # too few to see a fall
        (0.128, [*STUCK[:9], None], 360, False),
        (0.128, STUCK, None, False),
    ],
)
def test_a_score_above_chance_by_luck_with_a_loss_that_does_not_fall_is_no_learning(
    runs: Runs, score: float, losses: list[float], samples: int | None, is_dead: bool
) -> None:
    outcome = CHANCE | ({"samples": {"test": samples}} if samples else {})
    for seed in range(3):
        run(runs, "baseline", seed, losses=[*STUCK[seed:], 1.0], outcome=outcome)  # these learned
        run(runs, "pm-drop", seed, score, losses=losses, outcome=outcome)
    report = runs.content()
    named = [line for line in report.warnings if "never learned" in line]
    assert bool(named) == is_dead
    if is_dead:
        assert f"test accuracy {score:g} is within chance of 0.125" in named[0] and "360 samples" in named[0]
        assert "pass" not in results(report).values()


def test_models_that_learn_are_rarely_called_dead_and_models_that_know_nothing_mostly_are(runs: Runs) -> None:
    """Both tests err in 5 % of models that know nothing; a model that learns a little is spared by its loss."""
    random = np.random.default_rng(0)
    trials, samples, chance = 400, 500, 0.125

    def share_of_dead(right: float, fall: float) -> float:
        dead = 0
        for _ in range(trials):
            losses = 2.1 - fall * np.linspace(0, 1, 40) + random.normal(0, 0.05, 40)
            score = {SCORE: random.binomial(samples, right) / samples}
            logged = Logged(np.arange(40.0), losses)
            dead += bool(near_chance(score, {SCORE: chance}, {"test": samples}, logged))
        return dead / trials

    assert share_of_dead(chance, 0.0) > 0.85
    assert share_of_dead(chance + 0.03, 0.15) < 0.01
    assert share_of_dead(chance, 0.15) < 0.01  # it learned its training data, if nothing else


def test_a_share_among_five_is_judged_with_the_accuracy(runs: Runs) -> None:
    """Luck in one of two scores is no learning; one of them beyond luck is."""
    outcome = {"chance": {SCORE: 0.01, "test/top5": 0.05}, "samples": {"test": 1000}}
    for variant, top5 in (("baseline", 0.09), ("pm-drop", 0.055)):
        finals = {SCORE: 0.012, "test/top5": top5}
        runs.finished(variant, 0, finals, losses=STUCK, outcome=outcome)
    (line,) = (line for line in runs.content().warnings if "never learned" in line)
    assert "pm-drop never learned" in line and "top-5 accuracy 0.055 is within chance of 0.05" in line


# --- runs that are too short to learn

SHORT: dict[str, Any] = {
    "masks": {"metric": "memory/mask_bytes", "statistic": "times_smaller", "comparison": "at_least"},
    "speed": {"metric": STEP, "statistic": "relative_change", "comparison": "no_worse", "threshold": 0.02},
    "finite": {"statistic": "diverged", "comparison": "at_most"},
    "quality": {"metric": "score", "statistic": "difference", "comparison": "no_worse", "threshold": 0.1},
    "unchanged": {"statistic": "unchanged", "comparison": "at_most"},
}


@pytest.mark.parametrize("losses", [[2.4, 2.1], [2.4, 2.4]])
@pytest.mark.parametrize("learning", [True, False, None])
def test_runs_too_short_to_learn_are_judged_on_memory_and_speed_alone(
    runs: Runs, losses: list[float], learning: bool | None
) -> None:
    protocol = {"method": "pm-drop", "criteria": SHORT} | ({} if learning is None else {"learning": learning})
    for seed, variant in product(range(3), ("baseline", "pm-drop", "same-masks")):
        finals = {
            SCORE: 0.12,
            STEP: 10 + seed / 1000,
            "memory/mask_bytes": 4.0 if variant == "baseline" else 1.0,
        }
        told = {"outcome": CHANCE | {"weights_sha256": "w"}, "settings": {"variant.rng": "torch"}}
        if variant != "same-masks":
            told["settings"] = {"variant.rng": "philox"}
        runs.finished(variant, seed, finals, losses=losses, protocol=protocol, environment=MACHINE, **told)
    report = runs.content()
    judged = results(report)
    is_short = learning is False and losses[0] != losses[1]  # a loss that stands still is dead in any case
    assert {judged[name] for name in ("masks", "speed", "finite")} == {"pass" if is_short else "inconclusive"}
    assert {judged[name] for name in ("quality", "unchanged")} == {"inconclusive"}
    assert any("never learned" in line for line in report.warnings) != is_short
    assert any("too short to learn, and 9 of them" in line for line in report.warnings) == is_short


def test_a_protocol_that_says_no_more_than_the_default_is_the_one_of_before(runs: Runs) -> None:
    """Runs of before the key was there, and later ones of the same experiment."""
    for seed, more in enumerate(({}, {"learning": True}, {"learning": False})):
        protocol = {"method": "pm-drop", "criteria": CRITERIA, **more}
        runs.finished("baseline", seed, {SCORE: 0.9}, protocol=protocol, time=seed)
    (remark,) = runs.content().experiment.remarks
    assert remark.startswith("1 of 3 runs were started under another protocol (learning differs)")


def test_the_tasks_on_memory_say_that_their_runs_are_too_short_to_learn() -> None:
    for file in sorted((conf_folder() / "task" / "memory").glob("*.yaml")):
        assert yaml.safe_load(file.read_text())["protocol"] == {"learning": False}
    assert compose(["task=memory/tinybert"]).protocol.learning is False
    assert compose([]).protocol.learning is True


def test_a_criterion_that_fails_still_fails_on_a_dead_model(runs: Runs) -> None:
    slow = CriterionConfig(metric=STEP, statistic=Statistic.relative_change, comparison=Bound.at_most)
    assert slow.threshold == 0.0
    for seed in range(3):
        for variant, step in (("baseline", 10.0), ("pm-drop", 12.0)):
            finals = {STEP: step + seed / 100}
            criteria = {"slow": {"metric": STEP, "statistic": "relative_change", "comparison": "at_most"}}
            protocol = {"method": "pm-drop", "criteria": criteria}
            runs.finished(variant, seed, finals, losses=[1.0, 1.0], protocol=protocol)
    assert results(runs.content()) == {"slow": "fail"}


FITS = {
    "larger": {"statistic": "largest_ratio", "over": "train.batch_size", "threshold": 1.12},
    "alone": {"statistic": "only_fits", "threshold": 1},
}


@pytest.mark.parametrize("dead", ["", "baseline", "pm-drop"])
@pytest.mark.parametrize("answered", [False, True])
def test_what_fits_into_memory_passes_nothing_of_a_model_that_never_learned(
    runs: Runs, dead: str, answered: bool
) -> None:
    """By runs out of memory, and by answers of pmexp.fit beside runs of the same model and data."""
    protocol = {
        "method": "pm-drop",
        "criteria": {name: {**one, "comparison": "at_least"} for name, one in FITS.items()},
    }
    for variant, fits in (("baseline", 8), ("pm-drop", 32)):
        losses = [2.0, 2.0] if variant == dead else [2.0, 1.0]
        for batch in (8,) if answered else (8, 16, 32):
            told = {"settings": {"train.batch_size": batch}, "protocol": protocol}
            if batch <= fits:
                runs.finished(variant, 0, {SCORE: 0.9}, losses=losses, **told)
            else:
                runs.out_of_memory(variant, 0, **told)
        answer = {
            "labels": {"task": "net/digits", "system": "plain", "variant": variant, "seed": 0},
            "budget_bytes": 1e9,
            "method": "simulate",
            "what": "batch",
            "probes": [{"value": batch, "fits": batch <= fits} for batch in (8, 16, 32)],
        }
        (runs.folder / "fit").mkdir(exist_ok=True)
        if answered:
            (runs.folder / "fit" / f"{variant}.json").write_text(json.dumps(answer))
    report = content_of(runs.experiment(), "now", runs.folder / "fit", None)
    assert set(results(report).values()) == ({"inconclusive"} if dead else {"pass"})
    for one in report.criteria:
        assert (f"{dead} never learned in seed 0" in one.why) == bool(dead), one.why


@pytest.mark.parametrize("elsewhere", [{"system": "zero2"}, {"task": "other/digits"}])
def test_a_dead_model_elsewhere_takes_nothing_from_what_fits_here(
    runs: Runs, elsewhere: dict[str, str]
) -> None:
    protocol = {"method": "pm-drop", "criteria": {"alone": {**FITS["alone"], "comparison": "at_least"}}}
    for variant, fits in (("baseline", 8), ("pm-drop", 32)):
        for batch in (8, 16, 32):
            told = {"settings": {"train.batch_size": batch}, "protocol": protocol}
            if batch <= fits:
                runs.finished(variant, 0, {SCORE: 0.9}, losses=[2.0, 1.0], **told)
            else:
                runs.out_of_memory(variant, 0, **told)
        told = {"settings": {"train.batch_size": 8}, "protocol": protocol}
        runs.finished(variant, 0, {SCORE: 0.9}, losses=[2.0, 2.0], **told, **elsewhere)
    report = content_of(runs.experiment(), "now", runs.folder / "fit", None)
    assert results(report) == {"alone": "pass"}
