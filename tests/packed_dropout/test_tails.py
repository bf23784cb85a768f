"""Every odd size in memory that holds poison: through the public functions, on whatever backend runs."""

from collections.abc import Iterator

import pytest
import torch
import torch.utils.deterministic as deterministic
from torch import Tensor

from dropout_cases import SAVED_BYTES, VARIANTS, each_variant
from saved_tensors import saved_by


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Has torch fill what it allocates: with NaN, in uint8 with 255, in Boolean tensors with True."""
    before = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    deterministic.fill_uninitialized_memory = before


def dropped(name: str, x: Tensor) -> list[Tensor]:
    """Output, gradients (twice of a kept graph, once of a used one) and what was saved, with the masks of seed 6."""
    torch.manual_seed(6)
    y, saved = saved_by(lambda: VARIANTS[name](x))
    gradients = [torch.autograd.grad(y.sum(), x, retain_graph=retain)[0] for retain in (True, True, False)]
    assert sum(t.nbytes for t in saved) == (SAVED_BYTES[name](x.numel()) if x.numel() else 0)
    return [y, *gradients, *saved]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("numel", [0, 1, 7, 8, 9, 31, 32, 33, 1001])
@each_variant
def test_tails_are_written_whole(name: str, numel: int, dtype: torch.dtype) -> None:
    x = torch.ones(numel, dtype=dtype, requires_grad=True)
    deterministic.fill_uninitialized_memory = False
    expected = dropped(name, x)
    deterministic.fill_uninitialized_memory = True
    assert torch.empty(9).isnan().all() and (torch.empty(9, dtype=torch.uint8) == 255).all()
    actual = dropped(name, x)
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))
    y, *gradients = actual[:4]
    assert all(torch.equal(gradient, y) for gradient in gradients)
