"""Attacked images against the formula, and a model tested on data that it was not trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pmexp import datasets
from pmexp.command.compose import compose
from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.colours import Colours
from pmexp.models.examples import TensorExamples
from pmexp.training import robustness
from pmexp.training.prepared import prepare
from small_runs import TINY_VIT, Runs

SHORT = ["train.max_steps=6", "tracking=off"]


@pytest.mark.parametrize("parts", ["[]", "[tempo]", "[bf16,checkpointing]"])
def test_fgsm_moves_every_pixel_along_the_sign_of_the_gradient(parts: str) -> None:
    prepared = prepare(compose([*TINY_VIT, "variant=pm-drop", f"system.parts={parts}"]))
    training = prepared.training
    training.module.eval()
    rows = torch.arange(5, 21)
    clean = training.val.batch(rows, 0)
    pixels = clean.inputs["pixel_values"].clone().requires_grad_()
    with training.system.forward():
        logits = training.module(pixel_values=pixels).logits.float()
    F.cross_entropy(logits, clean.labels).backward()
    assert pixels.grad is not None
    # 0.05 of a pixel in [0, 1] is 0.1 of one in [-1, 1]; digits have black pixels, which cannot be darker
    expected = (pixels + 0.1 * pixels.grad.sign()).clamp(-1, 1).detach()
    attacked = robustness.FgsmExamples(training.val, robustness._gradient_of_inputs(training), 0.05)
    batch = attacked.batch(rows, 0)
    assert torch.equal(batch.inputs["pixel_values"], expected)
    assert torch.equal(batch.labels, clean.labels) and len(attacked) == len(training.val)
    assert not torch.equal(expected, clean.inputs["pixel_values"])


def test_a_step_is_of_a_pixel_where_a_checkpoint_has_other_numbers() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    colours = Colours((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    examples = TensorExamples({"pixel_values": pixels}, torch.arange(3), colours)
    darker = robustness.FgsmExamples(examples, lambda batch: -torch.ones(3, 3, 1, 1), 0.2)
    moved = darker.batch(torch.arange(3), 0).inputs["pixel_values"]
    expected = colours.numbers(
        torch.tensor([0, 0, 204], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    )
    torch.testing.assert_close(moved, expected)


def test_pixels_that_an_attack_would_cut_to_another_range_are_one_line() -> None:
    run = compose([*TINY_VIT, *SHORT, "robustness.fgsm=0.1"])
    digits = datasets.load(run.dataset)
    robustness.check_attack(run, digits)
    brighter = Split(digits.val.inputs * 255, digits.val.labels)
    data = replace(digits, val=brighter)
    with pytest.raises(
        UserError, match=r"^robustness\.fgsm: .* from -1 to 1, .* are from -255 to 255; give such, or"
    ):
        robustness.check_attack(run, data)
    robustness.check_attack(compose([*TINY_VIT, *SHORT]), data)
    in_bytes = Split(np.zeros((2, 1, 8, 8), np.uint8), np.arange(2))
    robustness.check_attack(run, replace(digits, val=in_bytes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda _: data)
        with pytest.raises(UserError, match=r"^robustness\.fgsm"):
            prepare(run)


def test_an_attack_is_on_record_and_hurts(runs: Runs) -> None:
    code, _, err = runs.train(*TINY_VIT, *SHORT, "train.max_steps=60", "robustness.fgsm=0.1")
    assert code == 0, err
    metrics = runs.summaries()["baseline-s0"]["metrics"]
    assert metrics["fgsm/loss"] > metrics["val/loss"] and metrics["fgsm/accuracy"] <= metrics["val/accuracy"]
    assert metrics["speed/epoch_s"] > 0


LISTOPS = [
    "model=tinybert", "model.pretrained=false", "model.positions=256", "dataset=listops", "dataset.max_length=256",
    "dataset.trees.samples=100", "dataset.trees.min_length=30", "dataset.trees.max_length=90",
    "model.architecture.num_hidden_layers=1", "model.architecture.hidden_size=24", "train.batch_size=8",
    "model.architecture.intermediate_size=24", "train.threads=1",
]  # fmt: skip
LONGER = [
    "+dataset@robustness.ood=listops", "robustness.ood.name=longer", "robustness.ood.max_length=512",
    "robustness.ood.trees.samples=20", "robustness.ood.trees.min_length=260",
    "robustness.ood.trees.max_length=400",
]  # fmt: skip


def test_expressions_too_long_for_the_model_are_tested_with_repeated_positions(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMEXP_CACHE", str(tmp_path / "cache"))
    code, _, err = runs.train(*LISTOPS, *LONGER, *SHORT)
    assert code == 0, err
    summary = runs.summaries()["baseline-s0"]
    assert 0 < summary["metrics"]["ood/loss"] != summary["metrics"]["test/loss"]
    assert "/260-400-" in summary["environment"]["ood_data"] != summary["environment"]["data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["robustness.fgsm=2"], "robustness.fgsm: 2.0 must lie in (0.0, 1.0]"),
        ([*LISTOPS, "robustness.fgsm=0.1"], "robustness.fgsm: attacks images and model=tinybert takes texts"),
        (["+dataset@robustness.ood=mrpc"], "robustness.ood: mrpc is not of the kind of dataset=digits"),
    ],
)
def test_what_cannot_be_tested_is_one_line(arguments: list[str], message: str, runs: Runs) -> None:
    code, _, err = runs.train(*arguments, *SHORT)
    assert code == 2 and message in err and len(err.splitlines()) == 1, err
