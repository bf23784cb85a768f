"""A loss of somebody's own that returns nothing to train on is one line that says what it returned."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.variants.method import Method


def loss_that_returns(make: Callable[[Tensor], Any]) -> Tensor:
    method = Method(loss=lambda model, inputs, labels: make(model(**inputs)))
    return method.loss_of(nn.Linear(2, 2), {"input": torch.ones(3, 2)}, torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda y: (y.sum(), y), "a tuple"),
        (lambda y: y.sum().item(), "a float"),
        (lambda y: y.sum(1), r"a tensor of shape \(3,\)"),
        (lambda y: y.detach().sum(), "a tensor that needs no gradient"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(make: Callable[[Tensor], Any], said: str) -> None:
    with pytest.raises(UserError, match=f"variant.apply: the method's loss returns {said}; return one"):
        loss_that_returns(make)


def test_a_loss_is_passed_on_as_it_is() -> None:
    assert loss_that_returns(lambda y: y.sum()).requires_grad
