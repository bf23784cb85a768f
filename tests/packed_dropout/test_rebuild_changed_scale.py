"""A product behind dropout is made again by the numbers of its forward, or not at all."""

import pytest
import torch
from torch import Tensor, nn

from pmexp.packed_dropout import PackedDropout, replace_dropout


class Scaled(nn.Module):
    """Drops probabilities that a buffer without dimensions scales."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out, self.drop = nn.Linear(8, 8), nn.Linear(8, 8), nn.Dropout(0.5)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.drop(torch.softmax(self.into(x), -1) * self.scale)).sum()
        return result


def test_a_scale_that_changes_before_backward_makes_no_other_gradient() -> None:
    model = Scaled()
    replace_dropout(model, PackedDropout, recompute=True)
    x = torch.randn(64, 8)
    model(x).backward()  # the first is compared with what was dropped, later ones are not
    loss = model(x)
    with torch.no_grad():
        model.scale.mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, model.out.weight)


def test_features_made_in_inference_mode_are_dropped() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8))
    replace_dropout(model, PackedDropout, recompute=True)
    with torch.inference_mode():
        features = torch.ones(64, 8)
    model(features).sum().backward()
    assert set(model[0](features).unique().tolist()) == {0.0, 2.0}
    assert model[1].weight.grad.abs().sum() > 0
