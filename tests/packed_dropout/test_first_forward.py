"""A model is watched until its first forward in training or a dry one has settled its report, and changed by neither."""

import copy
import logging
import pickle
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as under_another_name
from torch.utils.checkpoint import checkpoint

from hidden_dropouts import (
    ROUTED,
    Own,
    P,
    WithMethod,
    traced,
    x,
)
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.variants.seeded import SeededDropout


@pytest.mark.parametrize("hidden", ROUTED)
def test_the_first_forward_draws_as_every_later_one(hidden: str) -> None:
    stock, model = ROUTED[hidden](), ROUTED[hidden]()
    replace_dropout(model, PackedDropout, rng="torch")
    for _ in range(2):
        torch.manual_seed(3)
        expected = stock(x())
        torch.manual_seed(3)
        assert torch.equal(model(x()), expected)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("make", [WithMethod, traced], ids=["module", "torch.fx"])
def test_copies_find_and_keep_it_for_themselves(make: Any, ran: bool, copied: Any) -> None:
    model = make(None) if make is WithMethod else nn.Sequential(make())
    replace_dropout(model, PackedDropout)
    if ran:
        model(x())
    twin = copied(model)
    for _ in range(2):
        assert "Packed" in twin(x()).grad_fn.name()
    replace_dropout(model, nn.Dropout)
    assert "Packed" in twin(x()).grad_fn.name()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "Packed" not in model(x()).grad_fn.name()


def test_a_copied_part_of_a_watched_model_is_that_part_alone() -> None:
    model = nn.Sequential(WithMethod(lambda self, x: x), nn.Linear(300, 300))
    replace_dropout(model, PackedDropout)
    assert len(pickle.dumps(copy.deepcopy(WithMethod(None)))) * 3 > len(
        pickle.dumps(_without_lambda(model[0]))
    )


def _without_lambda(module: nn.Module) -> nn.Module:
    module.drops = None
    return module


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("hidden", ["another name", "module made on the way", "torch.dropout_"])
def test_the_first_step_may_be_checkpointed(hidden: str, reentrant: bool) -> None:
    model = nn.Sequential(ROUTED[hidden]())
    replace_dropout(model, PackedDropout)
    for _ in range(2):
        given = x()
        y = checkpoint(model[0], given, use_reentrant=reentrant)
        y.sum().backward()
        assert (y == 0).any() and torch.equal(given.grad, y)


class _Everything(nn.Module):
    """Changes what a forward may change: a buffer, a gradient, an attribute, and generators three."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.seen, self.drop = nn.BatchNorm1d(8), [], nn.Dropout(P)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.drop(self.norm(x)) * random.random() * np.random.rand() + torch.rand(8) + torch.randn(8)


def test_a_dry_run_changes_nothing() -> None:
    model = _Everything().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    report = replace_dropout(model, PackedDropout, example={"x": x()})
    assert report.settled and list(report.left) == [""] and "rand draws" in report.left[""]
    assert model.seen == [] and not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


class _AsksForValues(Own):
    def forward(self, x: Tensor) -> Tensor:
        return under_another_name(x * self.weight, P) if x.sum() > 0 else x


def test_a_model_that_asks_for_values_is_settled_by_its_first_real_forward() -> None:
    model = _AsksForValues(lambda self, x: x)
    report = replace_dropout(model, PackedDropout, example=(x(),))
    assert not report.settled
    model.eval()(x())
    assert not report.settled
    model.train()(x())
    assert report.settled and report.functions == [""]
    model(x())
    assert report.functions == [""]


def test_watched_modules_are_what_they_were_once_they_ran() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    model = nn.Sequential(Plain(), nn.Dropout(P))
    replace_dropout(model, PackedDropout)
    assert isinstance(model[0], Plain) and type(model[0]).__name__ == "Plain"
    for example in (None, (x(),)):
        replace_dropout(model, SeededDropout, example=example)
        assert (type(model[0]) is Plain) == (example is not None)
        model(x())
        assert type(model[0]) is Plain and type(model) is nn.Sequential


def test_what_was_exchanged_and_not_called_is_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.at_rate_0 = nn.Dropout(P), nn.Dropout(P), nn.Dropout(0.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    for dropout in (PackedDropout, SeededDropout, nn.Dropout):
        report = replace_dropout(Unused(), dropout, example=(x(),))
        assert report.uncalled == ["unused"] and "unused: exchanged, but no draw of it was seen" in str(
            report
        )


class CountsModes(nn.Module):
    """Notes how many modes of torch's functions are around its functional dropout."""

    def forward(self, x: Tensor) -> Tensor:
        self.modes = torch._C._len_torch_function_stack()
        return under_another_name(x, P, self.training)


def test_by_nn_dropout_a_model_runs_as_if_it_was_not_touched() -> None:
    model = nn.Sequential(CountsModes(), nn.Dropout(P))
    replace_dropout(model, nn.Dropout, example=(x(),))
    model(x())
    assert model[0].modes == 0


def test_by_nn_dropout_a_part_of_a_model_drops_by_no_route_around_it() -> None:
    model = nn.Sequential(CountsModes())
    model.forward = lambda x: under_another_name(nn.Sequential.forward(model, x), P, True)
    replace_dropout(model, PackedDropout, example=(x(),))
    replace_dropout(model[0], nn.Dropout, example=(x(),))
    y = model(x())  # a node of Python's has no name once its output is gone
    dropped = y.grad_fn
    assert "Packed" in dropped.name() and "Packed" not in dropped.next_functions[0][0].name()


def test_a_model_without_dropout_is_said_to_have_none_only_when_it_has_run() -> None:
    with pytest.raises(ValueError, match="no dropout is seen in it"):
        replace_dropout(Own(lambda self, x: x), PackedDropout, example=(x(),))
    model = Own(lambda self, x: x)
    assert "no dropout" not in str(replace_dropout(model, PackedDropout))
    with pytest.warns(UserWarning, match="found nothing to replace in Own: no dropout is seen in it"):
        model(x())
    model(x())  # and never again


def test_a_module_that_torch_compiled_is_left_to_the_dry_run() -> None:
    model = nn.Sequential(ROUTED["another name"](), nn.Dropout(P))
    model[0].compile(backend="eager")
    report = replace_dropout(model, PackedDropout)
    model(x())
    assert not report.settled
    assert replace_dropout(model, PackedDropout, example=(x(),)).functions == ["0"]


def test_the_dry_run_sees_inside_of_a_model_that_torch_compile_has_made() -> None:
    model = torch.compile(nn.Sequential(ROUTED["another name"](), nn.Dropout(P)), backend="eager")
    report = replace_dropout(model, PackedDropout, example=(x(),))
    assert report.settled and not report.uncalled
    assert report.modules == ["_orig_mod.1"] and report.functions == ["_orig_mod.0"]


class Expert(nn.Module):
    """Multiplies rows by the weights of groups, which torch's fake tensors know in bf16 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        product = torch._grouped_mm(x, self.weight, offs=torch.tensor([len(x)], dtype=torch.int32))
        return nn.functional.dropout(product, P, self.training)


def test_what_fake_tensors_cannot_run_prints_no_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchs_log = logging.getLogger("torch._subclasses.fake_tensor")
    monkeypatch.setattr(torchs_log, "handlers", [caplog.handler])
    model = nn.Sequential(Expert())
    with caplog.at_level(logging.INFO):
        replace_dropout(model, PackedDropout, example=(torch.randn(16, 16),))
    assert [record.name for record in caplog.records] == ["pmexp.packed_dropout.dry_run"]
    assert "Packed" in model(torch.randn(16, 16)).grad_fn.name()
