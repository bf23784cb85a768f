"""A loss of somebody's own that returns nothing to train on is one line that says what it returned."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.variants.method import Method
from pmexp.variants.replace import apply_method

MODULE = """
from pmexp.variants.method import Method

def method(model, returned):
    return Method(loss=lambda module, inputs, labels: eval(returned)(module(**inputs)))
"""


@pytest.fixture(autouse=True)
def _somebodys_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_loss.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def loss_that_returns(value: str) -> Tensor:
    model: nn.Module = nn.Linear(2, 2)
    variant: Any = SimpleNamespace(apply="their_loss.method", options={"returned": value})
    method = apply_method(model, variant)
    assert isinstance(method, Method) and method.loss is not None
    return method.loss(model, {"input": torch.ones(3, 2)}, torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("lambda y: (y.sum(), y)", "a tuple"),
        ("lambda y: y.sum().item()", "a float"),
        ("lambda y: y.sum(1)", r"a tensor of shape \(3,\)"),
        ("lambda y: y.detach().sum()", "a tensor without a gradient"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(value: str, said: str) -> None:
    with pytest.raises(UserError, match=f"variant.apply: their_loss.method: its loss returns {said}; return"):
        loss_that_returns(value)


def test_a_loss_is_passed_on_as_it_is() -> None:
    assert loss_that_returns("lambda y: y.sum()").requires_grad
