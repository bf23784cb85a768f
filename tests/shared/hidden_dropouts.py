"""Modules that drop by functional calls which no reading of their code shows, for tests of discovery."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import dropout as under_another_name

from pmexp.packed_dropout import PackedDropout, ReplacementReport, replace_dropout

P = 0.25
PARTIAL = functools.partial(F.dropout, p=P)
IN_A_LIST, IN_A_DICT = [F.dropout], {"drop": torch.dropout}


def _helper(x: Tensor) -> Tensor:
    return _helper_of_helper(x)


def _helper_of_helper(x: Tensor) -> Tensor:
    return under_another_name(x, P)


class Own(nn.Module):
    """Has `drops` for its forward, at the end of which there is something to multiply, as there is in a model."""

    def __init__(self, drops: Callable[..., Tensor]) -> None:
        super().__init__()
        self.drops, self.weight = drops, nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.drops(self, x * self.weight)


def _import_inside(_: Own, x: Tensor) -> Tensor:
    from torch.nn.functional import dropout as inner

    return inner(x, P)


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, P)


def traced() -> nn.Module:
    return torch.fx.symbolic_trace(Functional())


class WithMethod(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x * self.weight)

    def encode(self, x: Tensor) -> Tensor:
        return under_another_name(x, P)


STOCK_DROPOUT, STOCK_DROPOUTS = nn.Dropout(P), [nn.Dropout(P)]
ROUTED: dict[str, Callable[[], nn.Module]] = {
    "torch.dropout": lambda: Own(lambda self, x: torch.dropout(x, P, True)),
    "torch.dropout by names": lambda: Own(lambda self, x: torch.dropout(input=x, p=P, train=True)),
    "torch.dropout_": lambda: Own(lambda self, x: torch.dropout_(x, P, True)),
    "another name": lambda: Own(lambda self, x: under_another_name(x, P)),
    "partial": lambda: Own(lambda self, x: PARTIAL(x)),
    "a list": lambda: Own(lambda self, x: IN_A_LIST[0](x, P)),
    "a dictionary": lambda: Own(lambda self, x: IN_A_DICT["drop"](x, P, True)),
    "import inside": lambda: Own(_import_inside),
    "helper of a helper": lambda: Own(lambda self, x: _helper(x)),
    "module in a closure": lambda: Own(lambda self, x: STOCK_DROPOUT(x)),
    "module in a list": lambda: Own(lambda self, x: STOCK_DROPOUTS[0](x)),
    "module made on the way": lambda: Own(lambda self, x: nn.Dropout(P)(x)),
    "another method": lambda: WithMethod(lambda self, x: x),
    "getattr": lambda: Own(lambda self, x: getattr(F, "drop" + "out")(x, P)),
    "torch.fx": lambda: nn.Sequential(traced()),
}


def x() -> Tensor:
    return torch.ones(4, 8, 8, requires_grad=True)


def replaced(model: nn.Module, dry: bool, **options: Any) -> ReplacementReport:
    """The settled report, by a dry run or by a first forward."""
    example = {"example": (x(),)} if dry else {}
    report = replace_dropout(model, PackedDropout, **example, **options)
    if not dry:
        assert not report.settled and "not settled" in str(report)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"replace_dropout\(.*found nothing to replace")
            model(x())
    assert report.settled and "not settled" not in str(report)
    return report
