"""Meta and fake tensors pass through dropout with the shapes, layouts and saved sizes of real ones."""

import pytest
import torch
import torch._dynamo.exc
from torch._subclasses.fake_tensor import FakeTensorMode

from dropout_cases import (
    SAVED_BYTES,
    VARIANTS,
    Module,
    X,
    each_module,
    each_variant,
    net,
    step,
)
from saved_tensors import saved_by


@pytest.mark.parametrize("shape", [(33, 65), (7,), ()], ids=str)
@each_variant
def test_meta_tensors_have_shapes_and_saved_sizes(name: str, shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, device="meta", dtype=torch.bfloat16, requires_grad=True)
    y, saved = saved_by(lambda: VARIANTS[name](x))
    y.sum().backward()
    assert (y.shape, y.dtype, y.device.type) == (x.shape, x.dtype, "meta")
    assert x.grad.shape == x.shape
    assert [tensor.nbytes for tensor in saved] == [SAVED_BYTES[name](x.numel())]


@each_variant
def test_fake_tensors_have_the_layout_of_real_ones(name: str) -> None:
    with FakeTensorMode():
        x = torch.empty(3, 5, 7, 2).to(memory_format=torch.channels_last).requires_grad_()
        y, saved = saved_by(lambda: VARIANTS[name](x))
        (gradient,) = torch.autograd.grad(y, x, torch.empty_like(y))
    real = torch.ones(3, 5, 7, 2).to(memory_format=torch.channels_last).requires_grad_()
    real_y = VARIANTS[name](real)
    assert y.stride() == real_y.stride() == gradient.stride()
    assert [tensor.nbytes for tensor in saved] == [SAVED_BYTES[name](210)]


@each_module
def test_a_model_made_on_meta_and_filled_later(module: Module) -> None:
    with torch.device("meta"):
        model = net(module)
        assert model(torch.empty(8, 16)).shape == (8, 4)
    model.to_empty(device="cpu").load_state_dict(net(module).state_dict())
    for mine, expected in zip(step(model, X), step(net(module), X), strict=True):
        assert mine is not None and torch.equal(mine, expected)
