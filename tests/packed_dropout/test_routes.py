"""A route that follows probabilities to their product forgets them where something is written in place."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.packed_dropout import PackedDropout, replace_dropout


def _halved(y: Tensor) -> None:
    with torch.no_grad():
        y.mul_(0.5)


def _row_doubled(y: Tensor) -> None:
    y[0] *= 2


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "in place": lambda y: y.mul_(2),
    "under no_grad": _halved,
    "a row": _row_doubled,
    "a view": lambda y: y.view(2, 4, 4).add_(1),
    "dropped again": lambda y: F.dropout(y, 0.3, inplace=True),
    "by a keyword": lambda y: F.threshold(y, 0.2, 0.1, inplace=True),
    "as an output": lambda y: torch.mul(y.detach(), 2, out=y.detach()),
}


class Attention(nn.Module):
    """Multiplies dropped probabilities that are changed before or behind their dropout."""

    def __init__(self, change: Callable[[Tensor], Any], before: bool) -> None:
        super().__init__()
        self.change, self.before = change, before

    def forward(self, x: Tensor) -> Tensor:
        probabilities = torch.softmax(x, -1).to(torch.float64)
        if self.before:
            self.change(probabilities)
        y = F.dropout(probabilities, 0.3, self.training)
        if not self.before:
            self.change(y)
        return y @ x.double()


def gradient(change: str, before: bool, recompute: bool, compiled: bool) -> Tensor:
    model = Attention(CHANGES[change], before).train()
    replace_dropout(model, PackedDropout, recompute=recompute)
    run: Any = torch.compile(model, backend="aot_eager") if compiled else model
    x = torch.linspace(-1, 1, 2 * 4 * 4).view(2, 4, 4).requires_grad_(compiled)
    torch.manual_seed(1)
    if compiled:
        return torch.autograd.grad(run(x).square().sum(), x)[0]
    result: Tensor = torch.func.grad(lambda each: run(each).square().sum())(x)
    return result


@pytest.mark.parametrize("before", [False, True], ids=["behind", "before"])
@pytest.mark.parametrize("change", CHANGES)
def test_under_torch_func_what_was_changed_has_its_own_gradient(change: str, before: bool) -> None:
    plain, again = (gradient(change, before, recompute, False) for recompute in (False, True))
    assert torch.equal(plain, again)


def test_compiled_what_was_changed_has_its_own_gradient() -> None:
    torch.compiler.reset()
    plain, again = (gradient("in place", False, recompute, True) for recompute in (False, True))
    assert torch.equal(plain, again)
