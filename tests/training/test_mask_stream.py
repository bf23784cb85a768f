"""Another stream of masks: the same weights and data, and other masks; nothing else of the run moves."""

import pytest

from pmexp.command.compose import compose
from pmexp.errors import UserError
from pmexp.training.prepared import prepare
from small_runs import TINY_VIT

SHORT = [*TINY_VIT, "train.max_steps=2", "train.log_every=1"]


def losses(*overrides: str) -> list[float]:
    prepared = prepare(compose([*SHORT, *overrides]))
    return [metrics["train/loss"] for _, metrics in prepared.training.steps()]


def test_other_masks_and_the_same_weights_and_data() -> None:
    other = "variant=baseline-other-masks"
    assert losses(other, "variant.p=0.0") == losses("variant=baseline", "variant.p=0.0")
    of_seed, control = losses("variant=baseline"), losses(other)
    assert control != of_seed and control == losses(other)
    assert losses(other, "variant.mask_stream=2") not in (of_seed, control)
    assert losses("variant=pm-drop", "variant.mask_stream=1") != losses("variant=pm-drop")


def test_a_run_without_it_keeps_its_id_and_a_run_with_it_has_its_own() -> None:
    plain, other = compose([]), compose(["variant=baseline-other-masks"])
    assert "variant.mask_stream" not in plain.settings
    assert other.settings["variant.mask_stream"] == 1 and other.run_id != plain.run_id
    with pytest.raises(UserError, match=r"variant\.mask_stream: 0"):
        compose(["variant.mask_stream=0"])
