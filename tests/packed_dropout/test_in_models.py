"""Dropout modules inside a model: its copies and files, its hooks, its dtype and its parametrizations."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from dropout_cases import Module, each_module, net, ones


@each_module
def test_copies_and_files_of_a_model(module: Module) -> None:
    model = net(module)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    twins = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ]
    x = torch.ones(8, 16)
    torch.manual_seed(3)
    expected = model(x)
    for twin in twins:
        torch.manual_seed(3)
        assert torch.equal(twin(x), expected)
        assert repr(twin) == repr(model)


@each_module
def test_state_is_that_of_the_stock_model(module: Module) -> None:
    stock, model = net(nn.Dropout), net(module)
    buffer = io.BytesIO()
    torch.save(stock.state_dict(), buffer)
    buffer.seek(0)
    assert model.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    assert list(model.state_dict()) == list(stock.state_dict())
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    stock.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    x = torch.ones(8, 16)
    assert torch.equal(stock.eval()(x), model.eval()(x))


@each_module
def test_hooks_of_the_module_fire(module: Module) -> None:
    dropout, x, seen = module(0.4), ones(8, 100), {}
    dropout.register_forward_hook(lambda _, inputs, output: seen.update(y=output.detach().clone()))
    dropout.register_full_backward_hook(lambda _, into, out: seen.update(dx=into[0], dy=out[0]))
    (dropout(x) * 3.0).sum().backward()
    assert torch.equal(seen["dy"], torch.full_like(x, 3.0))
    assert torch.equal(seen["dx"], 3.0 * seen["y"])
    assert torch.equal(x.grad, seen["dx"])


@each_module
def test_parametrized_weight(module: Module) -> None:
    """DropConnect drops a weight, through torch.nn.utils.parametrize."""
    linear = nn.Linear(50, 20, bias=False)
    parametrize.register_parametrization(linear, "weight", module(0.4))
    with parametrize.cached():
        mask = linear.weight.detach() / linear.parametrizations.weight.original.detach()
        linear(torch.ones(1, 50)).sum().backward()
    assert (mask == 0).any()
    torch.testing.assert_close(linear.parametrizations.weight.original.grad, mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@each_module
def test_a_model_moved_to_another_dtype(module: Module, dtype: torch.dtype) -> None:
    model = net(module).to(dtype)
    y = model(torch.ones(8, 16, dtype=dtype))
    y.sum().backward()
    assert y.dtype == dtype
    assert {p.grad.dtype for p in model.parameters()} == {dtype}
