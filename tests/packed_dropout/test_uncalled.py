"""What was exchanged or routed and never dropped is named, and nothing else is."""

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.packed_dropout import PackedDropout, replace_dropout

P = 0.25


class InAThread(nn.Module):
    """Calls functional dropout in a thread that its forward starts, where no route is."""

    def forward(self, x: Tensor) -> Tensor:
        results: list[Tensor] = []
        worker = threading.Thread(target=lambda: results.append(F.dropout(x, P, self.training)))
        worker.start()
        worker.join()
        return results[0]


class WithRate(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)


class OneBlockUnderTwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(P)
        self.block = nn.Sequential(nn.Linear(8, 8), self.dropout, WithRate(P))
        self.again = self.block

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.block(x))


def test_a_route_that_no_call_took_is_named() -> None:
    model = nn.Sequential(nn.Linear(8, 8), InAThread())
    report = replace_dropout(model, PackedDropout)
    model(torch.ones(4, 8))
    assert report.settled and report.functions == ["1"] and report.uncalled == ["1"]
    assert "1: routed, but no call of functional dropout was seen" in str(report)


@pytest.mark.parametrize("p", [0.0, P])
def test_a_route_that_a_call_took_is_not_named_whatever_its_rate(p: float) -> None:
    model = nn.Sequential(nn.Linear(8, 8), WithRate(p))
    for example in (None, (torch.ones(4, 8),)):
        report = replace_dropout(model, PackedDropout, example=example)
        model[1](torch.ones(4, 8))  # a part by itself first
        model(torch.ones(4, 8))
        assert report.settled and report.functions == ["1"] and report.uncalled == []


def test_the_dropout_of_a_block_under_two_names_is_seen() -> None:
    model = OneBlockUnderTwoNames()
    report = replace_dropout(model, PackedDropout)
    model(torch.ones(4, 8))
    assert report.modules == ["dropout", "block.1"] and report.functions == ["block.2", "again.2"]
    assert report.uncalled == []


def test_a_module_without_source_is_left_alone_only_until_it_has_run() -> None:
    space: dict[str, Any] = {"WithRate": WithRate, "__name__": "typed"}
    exec(
        "class Unread(WithRate):\n  def forward(self, x): return __import__('torch').dropout(x, 0.5, True)",
        space,
    )
    model = nn.Sequential(nn.Linear(8, 8), space["Unread"](P))
    report = replace_dropout(model, PackedDropout)
    assert "has no source to read" in report.left["1"]
    model(torch.ones(4, 8))
    assert report.functions == ["1"] and report.left == {} and report.uncalled == []
