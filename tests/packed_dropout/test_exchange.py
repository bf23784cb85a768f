"""Which dropout modules are exchanged, and what moves along with one."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.variants.seeded import SeededDropout

P = 0.25


class Locked(nn.Dropout):
    """Drops with one mask for all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.dropout(torch.ones_like(x[:, :1]), self.p, self.training)


class Variational(nn.Dropout):
    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class MoreArguments(nn.Dropout):
    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        return F.dropout(x, self.p * factor, self.training)


class Scheduled(nn.Dropout):
    def train(self, mode: bool = True) -> "Scheduled":
        self.p = 0.5
        return super().train(mode)


class JustAName(nn.Dropout):
    """Adds nothing but a name."""

    def extra_repr(self) -> str:
        return "of mine"


class Willing(nn.Dropout):
    dropout_may_be_replaced = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.dropout(x, self.p, self.training)


@pytest.mark.parametrize("cls", [Locked, Variational, MoreArguments, Scheduled])
@pytest.mark.parametrize("inside", ["container", "routed module"])
def test_a_dropout_with_a_way_of_its_own_stays_what_it_is(cls: Any, inside: str) -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = cls(P)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.own(x), 0.0, self.training)

    stock, model = (
        nn.Sequential(cls(P), nn.Dropout(P)) if inside == "container" else Routed() for _ in range(2)
    )
    report = replace_dropout(model, PackedDropout, rng="torch")
    name = "0" if inside == "container" else "own"
    assert f"{cls.__name__} is a dropout of its own" in report.left[name]
    assert "dropout_may_be_replaced" in report.left[name]
    for _ in range(2):
        results = []
        for each in (stock, model):
            torch.manual_seed(1)
            x = torch.ones(4, 50, requires_grad=True)
            each(x).sum().backward()
            results.append(x.grad)
        assert torch.equal(*results)
    kept = model[0] if inside == "container" else model.own
    assert isinstance(kept, cls) and not any("Packed" in type(part).__name__ for part in kept.modules())
    assert type(kept(torch.ones(4, 50, requires_grad=True)).grad_fn).__name__ == "MulBackward0"


@pytest.mark.parametrize("cls", [nn.Dropout, JustAName, Willing, PackedDropout, SeededDropout])
def test_what_is_nn_dropout_but_for_its_name_is_exchanged(cls: Any) -> None:
    model = nn.Sequential(cls(P))
    assert replace_dropout(model, PackedDropout).modules == ["0"]
    assert type(model[0]) is PackedDropout and model[0].p == P


def test_what_was_put_in_can_be_exchanged_again() -> None:
    class Mine(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return x * 3

    model = nn.Sequential(nn.Dropout(P, inplace=True).eval())
    for dropout in (Mine, PackedDropout, Mine, SeededDropout, nn.Dropout):
        assert replace_dropout(model, dropout).modules == ["0"]
        assert type(model[0]) is dropout and (model[0].p, model[0].inplace, model[0].training) == (
            P,
            True,
            False,
        )
    assert "bits" not in vars(model[0])


def test_options_are_those_of_the_new_one() -> None:
    model = nn.Sequential(PackedDropout(P, bits=4, rng="torch"))
    replace_dropout(model, PackedDropout, bits=2)
    assert (model[0].bits, model[0].rng) == (2, "philox")


def test_hooks_move_along_and_their_handles_still_remove_them() -> None:
    model, seen = nn.Sequential(nn.Linear(8, 8), nn.Dropout(P)), []
    old = model[1]
    handles = [
        old.register_forward_pre_hook(lambda m, a: seen.append("pre")),
        old.register_forward_pre_hook(lambda m, a, k: seen.append("pre with kwargs"), with_kwargs=True),
        old.register_forward_hook(lambda m, a, y: seen.append("forward")),
        old.register_forward_hook(lambda m, a, k, y: seen.append("forward with kwargs"), with_kwargs=True),
        old.register_forward_hook(lambda m, a, y: seen.append("always"), always_call=True),
        old.register_full_backward_pre_hook(lambda m, g: seen.append("backward pre")),
        old.register_full_backward_hook(lambda m, i, o: seen.append("backward")),
        old.register_state_dict_post_hook(lambda *_: seen.append("state")),
        old.register_load_state_dict_post_hook(lambda *_: seen.append("load")),
    ]

    def run() -> set[str]:
        seen.clear()
        model(torch.ones(2, 8, requires_grad=True)).sum().backward()
        model.load_state_dict(model.state_dict())
        return set(seen)

    expected = run()
    assert len(expected) == 9
    replace_dropout(model, PackedDropout)
    assert type(model[1]) is PackedDropout and run() == expected
    for handle in handles:
        handle.remove()
    assert run() == set()


def test_attributes_buffers_and_parametrizations_move_along() -> None:
    class Twice(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 2 * w

    model = nn.Sequential(nn.Dropout(P))
    model[0].note, model[0].weight = "mine", nn.Parameter(torch.ones(2))
    model[0].register_buffer("seen", torch.zeros(3))
    model[0].register_buffer("passing", torch.zeros(3), persistent=False)
    parametrize.register_parametrization(model[0], "weight", Twice())
    keys, weight = list(model.state_dict()), model[0].parametrizations.weight.original
    for dropout in (PackedDropout, nn.Dropout, SeededDropout):
        replace_dropout(model, dropout)
        assert (
            isinstance(model[0], dropout)
            and model[0].note == "mine"
            and model[0].weight.tolist() == [2.0, 2.0]
        )
        assert list(model.state_dict()) == keys and model[0].parametrizations.weight.original is weight
    assert copy.deepcopy(model)[0].note == "mine"


def test_a_dropout_whose_forward_was_put_there_by_somebody_stays() -> None:
    model = nn.Sequential(nn.Dropout(P), nn.Dropout(P))
    model[0].forward = lambda x: x * 5
    assert replace_dropout(model, PackedDropout).left == {"0": "its forward was replaced"}
    assert (model[0](torch.ones(3)) == 5).all()


def test_a_model_that_is_a_dropout_itself() -> None:
    with pytest.raises(ValueError, match="the model: itself a dropout, which only a module around it"):
        replace_dropout(nn.Dropout(P), PackedDropout)


def test_being_willing_is_not_inherited_by_a_forward_of_its_own() -> None:
    class Unasked(Willing):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    class Renamed(Willing):
        pass

    model = nn.Sequential(Unasked(P), Renamed(P))
    report = replace_dropout(model, PackedDropout)
    assert report.modules == ["1"] and list(report.left) == ["0"]


class Learning(nn.Dropout):
    """Has a parameter, a buffer and a hook of its own."""

    def __init__(self, p: float, inplace: bool) -> None:
        super().__init__(p, inplace)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_forward_hook(lambda module, given, output: output * 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.scale


def test_what_the_new_class_makes_stays_beside_what_moves_along() -> None:
    model = nn.Sequential(nn.Dropout(0.0))
    model[0].register_buffer("kept", torch.full((), 2.0))
    model[0].register_forward_hook(lambda module, given, output: output + module.kept)
    replace_dropout(model, Learning)
    assert dict(model.named_parameters()).keys() == {"0.scale"}
    assert dict(model.named_buffers()).keys() == {"0.kept", "0.calls"}
    assert model.state_dict().keys() == {"0.scale", "0.kept"}
    assert model(torch.ones(())) in (1 * 3 + 2, (1 + 2) * 3)
