"""Lists the dropouts that the safety tests go through, a line in each table, and holds what those tests share."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pmexp.packed_dropout import PackedDropout, packed_dropout
from pmexp.variants.seeded import SeededDropout, seeded_dropout

Dropout = Callable[..., Tensor]  # called as F.dropout is: (input, p, training, inplace)
Module = partial[nn.Dropout]  # a class and its options

DROPOUTS: dict[str, Dropout] = {
    "packed": packed_dropout,
    "packed-rng-torch": partial(packed_dropout, rng="torch"),
    "seeded": seeded_dropout,
}
VARIANTS: dict[str, Dropout] = {  # where the width of what is kept matters
    **DROPOUTS,
    "packed-2bit": partial(packed_dropout, bits=2),
    "packed-4bit": partial(packed_dropout, bits=4),
}
MODULES: dict[str, Module] = {
    "packed": partial(PackedDropout),
    "packed-rng-torch": partial(PackedDropout, rng="torch"),
    "seeded": partial(SeededDropout),
}
SAVED_BYTES: dict[str, Callable[[int], int]] = {  # by the number of elements
    "packed": lambda numel: -(-numel // 8),
    "packed-rng-torch": lambda numel: -(-numel // 8),
    "seeded": lambda numel: 8,
    "packed-2bit": lambda numel: -(-numel // 4),
    "packed-4bit": lambda numel: -(-numel // 2),
}

X = torch.linspace(-1, 1, 8 * 16).view(8, 16)  # what `net` takes

each_name = pytest.mark.parametrize("name", DROPOUTS)
each_variant = pytest.mark.parametrize("name", VARIANTS)
each_dropout = pytest.mark.parametrize("drop", DROPOUTS.values(), ids=DROPOUTS)
each_module = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)


def ones(*shape: int) -> Tensor:
    """Returns ones that require a gradient: their dropout is its own scaled mask, and the gradient of its sum as well."""
    return torch.ones(shape, requires_grad=True)


def net(module: Module, p: float = 0.4) -> nn.Sequential:
    """16 -> 32 -> dropout -> 4, with the same weights each time."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 32), module(p), nn.Linear(32, 4))


def step(model: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Output and gradients of one step with the masks of seed 3."""
    torch.manual_seed(3)
    y = model(x)
    y.square().sum().backward()
    return [y, *(p.grad for p in model.parameters())]


def assert_gradient_is_mask(y: Tensor, x: Tensor) -> None:
    """Asserts that the gradient of a dropout of ones is the mask that it drew."""
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y.detach())
    assert 0 < (gradient == 0).sum() < gradient.numel()


def assert_derivatives(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compares the first and second derivatives under one mask with finite differences; the inputs are float64."""

    def under_one_mask(*tensors: Tensor) -> Tensor:
        torch.manual_seed(2)
        return function(*tensors)

    assert torch.autograd.gradcheck(under_one_mask, inputs)
    assert torch.autograd.gradgradcheck(under_one_mask, inputs)
