"""What is changed in place between its dropout and its product is refused or saved, never made again wrongly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebuilt_operands import SHAPE, WEIGHT, Step, assert_made_again, train


@pytest.mark.parametrize("change", ["input", "dropped"])
def test_a_change_in_place_is_seen(change: str) -> None:
    """As autograd sees it: a source that was changed after it was saved is refused; a dropped tensor that is
    changed before its product is saved as it is then."""

    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        hidden = x * 2
        y = drop(F.gelu(hidden))
        with torch.no_grad():
            (hidden if change == "input" else y).mul_(3)
        return F.linear(y, WEIGHT * x.mean())

    if change == "dropped":
        assert_made_again(step, operands=0)
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            train(step, True)


def _residual(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    hidden = x * 2
    y = drop(hidden)
    hidden.add_(1)
    return F.linear(y, WEIGHT * x.mean()) + hidden


def _changed_constant(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    constant = torch.ones(SHAPE)
    y = drop(constant)
    constant.add_(1)
    return F.linear(y, WEIGHT * x.mean())


def _changed_cast(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    probabilities = torch.softmax(x, -1, torch.float64).float()
    with torch.no_grad():
        probabilities.mul_(3)
    return F.linear(drop(probabilities), WEIGHT * x.mean())


def _changed_result(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    hidden = F.gelu(x)
    with torch.no_grad():
        hidden.mul_(3)
    return F.linear(drop(hidden), WEIGHT * x.mean())


def _changed_before_a_cast(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    y = drop(F.gelu(x))
    with torch.no_grad():
        y.mul_(3)
    return F.linear(y.double(), WEIGHT.double() * x.mean())


@pytest.mark.parametrize(
    ("step", "operands"),
    [
        (_residual, 0),
        (_changed_constant, 0),
        (_changed_before_a_cast, 0),
        (_changed_cast, 1),  # made again of the input, which is held
        (_changed_result, 1),
    ],
)
def test_what_was_changed_in_place_is_no_source(step: Step, operands: int) -> None:
    """Neither the input of a dropout, once it is changed, nor a result that was changed on its way."""
    assert_made_again(step, operands)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_what_others_write_into_their_memory_changes_no_gradient(dtype: type[np.generic]) -> None:
    """As an environment does that fills one array with each observation."""

    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        array = np.ones(SHAPE, dtype)
        observed = torch.from_numpy(array)
        y = F.linear(drop(observed.float()), WEIGHT * x.mean())
        array[:] = 7
        return y + observed.sum()

    assert_made_again(step, operands=0, followed=True)
