"""The gradient check: rounding for every dropout there is, large for a wrong one, and of the run's own dropout."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import Function

from pmexp.command.compose import compose
from pmexp.command.schema import conf_folder
from pmexp.config import Where
from pmexp.measure.gradient_check import gradient_error
from pmexp.training import run as experiment
from pmexp.variants.replace import apply_variant
from small_runs import TINY_VIT, Runs

# The option "own" is no variant itself.
VARIANTS = sorted({file.stem for file in conf_folder().glob("variant/*.yaml")} - {"own"})
CPU = torch.device("cpu")
SHORT = [*TINY_VIT, "train.max_steps=2", "tracking=off"]


def dropout_of(variant: str, rng: str, p: float) -> nn.Module:
    alone = nn.Sequential(nn.Dropout(p))
    config = compose([f"variant={variant}", f"variant.rng={rng}"]).variant
    apply_variant(alone, replace(config, where=Where.all))
    return alone


class _OffBy(Function):
    """The identity, whose gradient is too large by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class OffBy(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_OffBy.apply(input, 1 + 1e-9))


@pytest.mark.parametrize("rng", ["philox", "torch"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_of_every_variant_it_is_rounding_but_of_flipped_bits(variant: str, rng: str) -> None:
    dropouts = {p: dropout_of(variant, rng, p) for p in (0.02, 0.1, 0.37, 0.9)}
    before = torch.get_rng_state()
    errors = {p: gradient_error(dropout, CPU) for p, dropout in dropouts.items()}
    assert torch.equal(torch.get_rng_state(), before)
    for p, error in errors.items():
        if (
            variant == "bit-flips"
        ):  # an element is lost, or comes though it was dropped: v / (1 - p), v up to 1
            assert 0.9 / (1 - p) < error < 1.1 / (1 - p)
        else:
            assert error <= 8 * 2**-53 / (1 - p)


@settings(max_examples=25)
@given(st.floats(0.01, 0.99))
def test_a_gradient_off_by_a_billionth_is_seen(p: float) -> None:
    assert gradient_error(nn.Dropout(p), CPU) <= 8 * 2**-53 / (1 - p)
    assert 0.5 < gradient_error(OffBy(p), CPU) * (1 - p) / 1e-9 < 1.001  # v of some element that was kept


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_checked_is_what_the_run_trains_with(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(experiment, "gradient_error", lambda module, device: checked.append(module) or 0.5)
    config = compose([*SHORT, f"variant={variant}", "variant.p=0.3"])
    prepared = experiment.prepare(config)
    before = torch.get_rng_state()
    assert experiment._gradient_check(config, prepared) == ({"check/gradient_error": 0.5}, "float64 on cpu")
    assert torch.equal(torch.get_rng_state(), before)
    model, report = prepared.training.module, prepared.replacement
    names = [*report.modules, *(f"{name}.routed_dropout" for name in report.functions)]
    trained, ((alone,),) = model.get_submodule(names[0]), checked
    assert repr(alone).replace("p=0.3", f"p={trained.p}") == repr(trained)  # a routed one is told p at a call
    assert alone.p == 0.3
    packing = [len(each._forward_pre_hooks) for each in (checked[0], model)]
    assert packing == ([1, 1] if variant == "hooks" else [0, 0])


@pytest.mark.parametrize(("rate", "records"), [("0.2", 1), ("0.0", 0), ("1.0", 0)])
def test_it_is_on_record_once_or_the_record_says_why_not(rate: str, records: int, runs: Runs) -> None:
    assert runs.train(*SHORT, "variant=pm-drop", f"variant.p={rate}")[0] == 0
    summary = runs.summaries()["pm-drop-s0"]
    errors = runs.curve("pm-drop-s0", "check/gradient_error")
    assert [step for step, _ in errors] == [0] * records
    assert ("check/gradient_error" in summary["metrics"]) == bool(records)
    said = summary["environment"]["gradient_check"]
    assert said == (
        "float64 on cpu" if records else "not checked: no dropout replaced has a rate between 0 and 1"
    )
