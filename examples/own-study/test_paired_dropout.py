"""What the method has to keep: dropout's share and scale, and a gradient through the very elements kept."""

import pytest
import torch

from paired_dropout import PairedDropout


@pytest.mark.parametrize("shape", [(100, 200), (101, 99)])
def test_it_drops_pairs_at_the_rate_and_scales_what_stays(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    y = PairedDropout(0.25)(torch.ones(shape)).flatten()
    assert set(y.unique().tolist()) <= {0.0, y.max().item()} and abs(y.max().item() - 1 / 0.75) < 1e-6
    assert abs((y == 0).float().mean().item() - 0.25) < 0.02
    assert torch.equal(y[0 : len(y) - 1 : 2], y[1::2])


def test_the_gradient_passes_where_the_input_did() -> None:
    torch.manual_seed(0)
    x = torch.ones(64, 32, requires_grad=True)
    y = PairedDropout(0.5)(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())


def test_it_drops_nothing_in_evaluation() -> None:
    x = torch.randn(8, 8)
    assert torch.equal(PairedDropout(0.5).eval()(x), x)
