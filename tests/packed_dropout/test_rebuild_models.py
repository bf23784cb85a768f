"""Whole models whose dropped operands are made again: fused products, checkpoints, offloading, copies."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, packed_dropout, replace_dropout
from pmexp.packed_dropout.rebuild import rebuilding, watching
from rebuilt_operands import WEIGHT


class Block(nn.Module):
    """A feed-forward layer with a head: dropout in front of both products."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 4)
        self.inner, self.outer = nn.Dropout(0.2), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.outer(torch.tanh(self.down(self.inner(F.gelu(self.up(x)))))))


class FusedAttention(nn.Module):
    """Takes queries, keys and values as views of one product, as vit-pytorch and timm do."""

    def __init__(self, products: str) -> None:
        super().__init__()
        self.qkv, self.out, self.dropout = nn.Linear(16, 48), nn.Linear(16, 16), nn.Dropout(0.2)
        self.products = products

    def forward(self, x: Tensor) -> Tensor:
        if self.products == "chunked":
            q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        else:
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.dropout(torch.softmax(q @ k.transpose(-1, -2), -1)) @ v
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("products", ["chunked", "unbound"])
def test_views_of_a_fused_product_are_no_reason_to_save_more(products: str) -> None:
    results, saved = [], []
    for options in (None, {}, {"recompute": True}):
        torch.manual_seed(1)
        model = FusedAttention(products)
        if options is not None:
            replace_dropout(model, PackedDropout, rng="torch", **options)
        x = torch.linspace(-1, 1, 2 * 24 * 16).view(2, 24, 16).requires_grad_()
        torch.manual_seed(2)
        with SavedForBackward(model) as ledger:
            y = model(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), (x, *model.parameters()))])
        saved.append(ledger.total_bytes)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))
    probabilities = 2 * 2 * 24 * 24
    assert (
        saved[1] - saved[2] == 4 * probabilities
        and saved[0] - saved[1] == 4 * probabilities - probabilities // 8
    )


@pytest.mark.parametrize("how", ["checkpoint", "reentrant", "layers checkpointed", "on the CPU", "copied"])
def test_around_a_model(how: str) -> None:
    gradients = []
    for swapped in (False, True):
        torch.manual_seed(1)
        model: Any = nn.Sequential(Block(), nn.Linear(4, 8), Block())
        if swapped:
            replace_dropout(model, PackedDropout, rng="torch", recompute=True)
        model = copy.deepcopy(model) if how == "copied" else model
        x = torch.linspace(-1, 1, 80).view(10, 8).requires_grad_()
        torch.manual_seed(2)
        made: list[Any] = []
        with watching(made.append):
            if how in ("checkpoint", "reentrant"):
                y = checkpoint(model, x, use_reentrant=how == "reentrant")
            elif how == "layers checkpointed":
                y = x
                for layer in model:
                    y = checkpoint(layer, y, use_reentrant=False)
            elif how == "on the CPU":
                with save_on_cpu():
                    y = model(x)
            else:
                y = model(x)
            y.square().sum().backward()
        assert (len(made) >= 4) == swapped
        gradients.append([x.grad, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_dropouts_that_do_not_recompute_stay_as_they_are() -> None:
    made: list[Any] = []
    model = nn.Sequential(Block())
    replace_dropout(model, PackedDropout)
    with watching(made.append):
        model(torch.randn(4, 8))
        with rebuilding():
            F.linear(
                packed_dropout(F.gelu(torch.randn(4, 8, requires_grad=True))), WEIGHT.clone().requires_grad_()
            )
    assert not made
