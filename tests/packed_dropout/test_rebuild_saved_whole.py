"""A dropped operand that cannot be made again, or not for fewer bytes, is saved as it is and has its reason."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.packed_dropout.kept import kept_by
from pmexp.packed_dropout.rebuild import watching
from rebuilt_operands import SHAPE, WEIGHT, Step, assert_made_again, train


def _larger(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    kept = x + 1
    return F.linear(drop(kept).bfloat16(), WEIGHT.bfloat16() * x.mean()) + kept.mean()


def _of_numpy(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    observed = torch.from_numpy(np.ones(SHAPE, np.float32))
    return F.linear(drop(observed), WEIGHT * x.mean()) + observed.mean()


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda x, drop: F.linear(drop(x + 1), WEIGHT * x.mean()), "nobody holds the input of its dropout"),
        (_larger, "the input of its dropout is larger, and not known to be kept anyhow"),
        (_of_numpy, "the input of its dropout lies in memory of others"),
        (
            lambda x, drop: F.linear(drop(x + 1, inplace=True), WEIGHT * x.mean()),
            "its dropout wrote into its",
        ),
        (lambda x, drop: F.linear(F.pad(drop(F.gelu(x)), (1, -1)), WEIGHT * x.mean()), "ConstantPadNd lies"),
        (lambda x, drop: F.linear(drop(F.gelu(x)).add_(2), WEIGHT * x.mean()), None),
        (
            lambda x, drop: F.linear(drop(F.gelu(x)).double().float(), WEIGHT * x.mean()),
            "it is a copy of a copy",
        ),
        (lambda x, drop: F.linear(drop(F.gelu(x)) * 0.3, WEIGHT * x.mean()), "a product with a number lies"),
        (lambda x, drop: F.linear(drop(F.gelu(x)) / 3, WEIGHT * x.mean()), "a product with a number lies"),
        (lambda x, drop: F.linear(drop(F.gelu(x)) * x, WEIGHT * x.mean()), None),
        (lambda x, drop: F.linear(F.layer_norm(drop(F.gelu(x)), (8,)), WEIGHT * x.mean()), None),
        (lambda x, drop: F.linear(F.gelu(x), WEIGHT * x.mean()), None),
    ],
    ids=[
        "gone",
        "larger",
        "of NumPy",
        "in place",
        "padded",
        "another operation",
        "copied twice",
        "scaled",
        "divided",
        "a gate behind it",
        "a norm",
        "not dropped",
    ],
)
def test_what_is_saved_whole_has_its_reason(step: Step, why: str | None) -> None:
    whole: list[str] = []
    with watching(lambda _: None, whole.append):
        train(step, True)
    assert (why is None) == (not whole) and all(why is not None and why in reason for reason in whole)


def test_the_ledger_and_the_report_count_what_is_saved_whole_by_its_reason() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Softplus(), nn.Dropout(0.2), nn.Linear(8, 8))
    report = replace_dropout(model, PackedDropout, recompute=True)
    with SavedForBackward(model, report) as ledger:
        model(torch.randn(4, 8))
    assert list(report.saved_whole.values()) == [1] and report.saved_whole == ledger.saved_whole
    assert ledger.metrics()["memory/saved_dropped_operands"] == 1
    assert "1 x a dropped operand saved as it is: nobody holds" in str(report)


def test_what_nobody_keeps_is_saved_as_it_is() -> None:
    assert_made_again(lambda x, drop: F.linear(drop(x + 1), WEIGHT * x.mean()), operands=0)
    assert_made_again(lambda x, drop: F.linear(drop(F.softplus(x)), WEIGHT * x.mean()), operands=0)


def test_an_input_larger_than_the_cast_that_is_saved_is_not_kept_for_it() -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        kept = x + 1
        return F.linear(drop(kept), WEIGHT * x.mean()) + kept.mean()

    assert_made_again(step, operands=1)
    assert_made_again(step, operands=0, autocast=True)


def test_a_torch_that_does_not_show_what_is_saved_is_one_line() -> None:
    """As torch 2.9 does not, whose saved tensors have no `data`."""
    with pytest.raises(
        NotImplementedError, match=r"recompute=True and tempo .* torch 2\.10 or newer is needed"
    ):
        kept_by(object())
