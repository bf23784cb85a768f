"""A model whose dropped operands are made again has the same derivatives under transforms, or refuses them."""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo.exc
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import (
    functional_call,
    grad,
    jvp,
    vmap,
)

from dropout_cases import (
    X,
)
from pmexp.packed_dropout import (
    PackedDropout,
    replace_dropout,
)


class _Layer(nn.Module):
    """Dropout in front of two products, whose operands are made again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 4)
        self.probs, self.hidden = nn.Dropout(0.4), nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        probs = self.probs(torch.softmax(x @ x.mT, -1))
        y: Tensor = self.last(self.hidden(F.gelu(self.first(probs @ x))))
        return y


def _loss(model: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    y: Tensor = functional_call(model, parameters, (x,))
    return y.square().sum()


def _second_derivative(model: nn.Module, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {name: parameter.requires_grad_() for name, parameter in parameters.items()}
    first = torch.autograd.grad(_loss(model, leaves, X), list(leaves.values()), create_graph=True)
    total = torch.stack([part.square().sum() for part in first]).sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


@pytest.mark.parametrize(
    "derivative",
    [
        lambda model, parameters: grad(lambda p: _loss(model, p, X))(parameters),
        lambda model, parameters: vmap(
            grad(lambda p, x: _loss(model, p, x)), in_dims=(None, 0), randomness="different"
        )(parameters, X.view(2, 4, 16)),
        lambda model, parameters: {"": jvp(model, (X,), (X,))[1]},
        _second_derivative,
    ],
    ids=["grad", "each sample", "forward mode", "second derivative"],
)
def test_a_model_whose_operands_are_made_again_has_the_same_derivatives(
    derivative: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]],
) -> None:
    results = []
    for recompute in (False, True):
        torch.manual_seed(1)
        model = _Layer()
        replace_dropout(model, PackedDropout, recompute=recompute)
        torch.manual_seed(2)
        results.append(derivative(model, {name: p.detach() for name, p in model.named_parameters()}))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_transform_inside_such_a_forward_is_refused() -> None:
    """torch lets no transform begin where saved tensors have hooks, nor inside a checkpoint."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = _Layer()

        def forward(self, x: Tensor) -> Tensor:
            slope: Tensor = grad(lambda x: self.layer(x).sum())(x)
            return slope

    model = Slope()
    replace_dropout(model, PackedDropout, recompute=True)
    with pytest.raises(RuntimeError, match="saved tensor hooks") as refused:
        model(X)
    assert "recompute=False" in refused.value.__notes__[0]
