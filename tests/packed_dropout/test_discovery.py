"""Dropout that no reading of the code shows is found by the first forward, and by a dry one: routed or named."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import dropout as under_another_name
from torch.utils.checkpoint import checkpoint

from hidden_dropouts import (
    PARTIAL,
    ROUTED,
    Functional,
    Own,
    P,
    WithMethod,
    replaced,
    x,
)
from pmexp.packed_dropout import replace_dropout
from pmexp.packed_dropout.discovery import other_draws, unnamed_draws
from pmexp.variants.seeded import SeededDropout
from saved_tensors import saved_by


class _Xdropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(mask := torch.empty_like(x).bernoulli_(0.5))
        return x * mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0]


def _scripted() -> nn.Module:
    class Scripted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.dropout(x, 0.25, True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(Scripted())


def _recorded() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(Functional(), x(), check_trace=False)


def _attend(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, dropout_p=P)


NAMED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "native_dropout": (lambda: Own(lambda self, x: torch.native_dropout(x, P, True)[0]), "native_dropout"),
    "feature_dropout": (lambda: Own(lambda self, x: F.dropout1d(x, P)), "dropout1d"),
    "dropout2d": (lambda: Own(lambda self, x: F.dropout2d(x.view(4, 8, 4, 2), P).view(4, 8, 8)), "dropout2d"),
    "alpha_dropout": (lambda: Own(lambda self, x: F.alpha_dropout(x, P, True)), "alpha_dropout"),
    "bernoulli": (lambda: Own(lambda self, x: x * torch.bernoulli(torch.full_like(x, 0.5))), "bernoulli"),
    "bernoulli_": (lambda: Own(lambda self, x: x * torch.empty_like(x).bernoulli_(0.5)), "bernoulli_"),
    "rand": (lambda: Own(lambda self, x: x * (torch.rand(8) > 0.5)), "rand"),
    "own autograd function": (lambda: Own(lambda self, x: _Xdropout.apply(x)), "bernoulli_"),
    "sdpa in a checkpointed function": (lambda: Own(lambda self, x: checkpoint(_attend, x, use_reentrant=False)), "scaled_dot_product_attention draws inside its kernel"),
    "scripted": (lambda: nn.Sequential(_scripted()), "aten"),
    "recorded": (lambda: nn.Sequential(_recorded()), "aten"),
    "in a checkpointed function": (lambda: Own(lambda self, x: checkpoint(lambda x: F.dropout(x, P), x, use_reentrant=False)), "a function given to a checkpoint"),
}  # fmt: skip


def _hooked() -> nn.Module:
    linear = nn.Linear(8, 8)
    linear.register_forward_hook(lambda module, args, y: PARTIAL(y, training=module.training))
    return linear


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    "layer",
    [_hooked, lambda: nn.TransformerEncoderLayer(8, 2, 8, 0.0, lambda x: PARTIAL(x), batch_first=True)],
)
def test_functions_given_to_modules_of_torch_are_looked_at(layer: Any, dry: bool) -> None:
    report = replaced(nn.Sequential(layer(), nn.Dropout(P)), dry)
    assert len(report.functions) == 1 and "1" in report.modules


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Dropout(P)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x)


@pytest.mark.parametrize("dry", [False, True])
def test_a_dropout_under_two_names_is_called_under_both(dry: bool) -> None:
    report = replaced(nn.Sequential(WithMethod(lambda self, x: x), Shared()), dry)
    assert report.modules == ["1.first", "1.second"] and report.uncalled == []


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("hidden", ROUTED)
def test_hidden_functional_dropout_is_routed(hidden: str, dry: bool) -> None:
    model = nn.Sequential(ROUTED[hidden](), nn.Dropout(P))
    place = "0.0" if hidden == "torch.fx" else "0"
    report = replaced(model, dry)
    assert (
        report.functions == [place]
        and report.modules == ["1"]
        and report.left == {}
        and report.uncalled == []
    )
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(x())
    assert [t.numel() for t in saved if t.dtype == torch.uint8] == [32, 32]


class SomebodysDropout(nn.Dropout):
    """Drops with code and random numbers outside of our package."""

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x, self.p, self.training)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(input, p, training)[0]


@pytest.mark.parametrize("dropout", [SomebodysDropout, SeededDropout])
def test_another_dropout_is_told_from_masks_of_others(dropout: Any) -> None:
    model = nn.Sequential(ROUTED["another name"](), nn.Dropout(P), WithMethod(lambda self, x: x))
    for example in (None, (x(),)):
        report = replace_dropout(model, dropout, example=example)
        model(x())
        assert (report.modules, report.functions) == (["1"], ["0", "2"])
        assert report.left == {} and report.uncalled == []
        with other_draws(model, report) as draws:
            model(x())
            x() * torch.rand(8)
        assert unnamed_draws(draws, report) == [f"the model: {draws[0]}"] and "rand" in str(draws[0])


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("hidden", NAMED)
def test_what_cannot_be_routed_is_named_with_its_line(hidden: str, dry: bool) -> None:
    make, by = NAMED[hidden]
    model = nn.Sequential(make(), nn.Dropout(P))
    report = replaced(model, dry)
    compiled = hidden in ("scripted", "recorded")
    place = "0.0" if compiled else "0"
    assert list(report.left) == [place] and by in report.left[place]
    assert "test_discovery.py:" in report.left[place] or compiled


@pytest.mark.parametrize(
    ("where", "functions"), [("all", ["0", "1"]), ("attention", ["1"]), ("hidden", ["0"])]
)
def test_found_dropout_keeps_to_its_place(where: Any, functions: list[str]) -> None:
    class OwnAttention(Own):
        pass

    model = nn.Sequential(ROUTED["another name"](), OwnAttention(lambda self, x: under_another_name(x, P)))
    for dry in (False, True):
        report = replaced(copy.deepcopy(model), dry, where=where)
        assert report.functions == functions
        assert report.left == {name: f"where={where}" for name in ("0", "1") if name not in functions}


class DropPathMLP(nn.Module):
    """Has a name that says nothing of what it drops."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, P)


class Skipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.empty(len(x), 1, 1).bernoulli_(1 - P)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("dry", [False, True])
def test_dropping_whole_samples_is_known_by_the_draw_and_not_by_a_name(dry: bool, samples: int) -> None:
    model = nn.Sequential(nn.Linear(8, 8), DropPathMLP(), Skipped())
    report = replaced(model, dry)
    model(x()[:samples])
    assert report.functions == ["1"] and list(report.left) == ["2"]
    assert "draws one number a sample" in report.left["2"] and "test_discovery.py" in report.left["2"]


def test_stock_dropout_in_a_model_of_functions_alone_is_no_failure() -> None:
    report = replace_dropout(WithMethod(lambda self, x: x), nn.Dropout, example=(x(),))
    assert (
        report.left == {"": "functional calls are nn.Dropout's own"} and report.nothing_found("Model") is None
    )


@pytest.mark.parametrize("dry", [False, True])
def test_attention_that_only_running_shows_is_routed_from_the_first_forward_on(dry: bool) -> None:
    stock = Own(lambda self, x: _attend(x))
    model: Any = nn.Sequential(Own(lambda self, x: _attend(x)), nn.Identity())
    report = replaced(model, dry, rng="torch")
    for _ in range(2):
        torch.manual_seed(3)
        expected = stock(x())
        torch.manual_seed(3)
        y, saved = saved_by(lambda: model(x()))
        assert torch.equal(y, expected)
        assert [t.numel() for t in saved if t.dtype == torch.uint8] == [4 * 8 * 8 // 8]
    assert report.settled and report.attention == {"0": "math kernel on cpu"} and report.left == {}
