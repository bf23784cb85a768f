"""flip_rate: the faults are where they were asked for, and the backward sees them."""

import math

import pytest
import torch

from pmexp.packed_dropout import PackedDropout, packed_dropout, unpack_bits
from pmexp.packed_dropout.bit_flips import flip_bits

N = 200_000


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.5])
def test_share_of_the_bits(rate: float) -> None:
    packed = torch.randint(0, 256, (N // 8,), dtype=torch.uint8)
    flipped = flip_bits(packed, N, rate, torch.tensor([3]))
    count = int(unpack_bits(packed ^ flipped, (N,)).sum())
    assert abs(count - N * rate) < 5 * math.sqrt(N * rate * (1 - rate))
    assert torch.equal(flipped, flip_bits(packed, N, rate, torch.tensor([3])))
    assert not torch.equal(flipped, flip_bits(packed, N, rate, torch.tensor([4])))


@pytest.mark.parametrize("values", [0, 1, 7, 8, 9, 1001])
def test_every_bit_and_none(values: int) -> None:
    packed = torch.zeros((values + 7) // 8, dtype=torch.uint8)
    assert torch.equal(flip_bits(packed, values, 0.0, torch.tensor([1])), packed)
    assert unpack_bits(flip_bits(packed, values, 1.0, torch.tensor([1])), (values,)).all()
    # No bit behind the last value is flipped.
    of_values = sum(2 ** (i % 8) for i in range(values))
    assert int(flip_bits(packed, values, 1.0, torch.tensor([1])).sum()) == of_values


@pytest.mark.parametrize("rng", ["philox", "torch"])
def test_backward_goes_by_the_flipped_mask_and_forward_does_not(rng: str) -> None:
    x = torch.ones(N, requires_grad=True)
    torch.manual_seed(1)
    clean = packed_dropout(x, 0.1, rng=rng)  # type: ignore[arg-type]
    torch.manual_seed(1)
    y = packed_dropout(x, 0.1, rng=rng, flip_rate=0.05)  # type: ignore[arg-type]
    assert torch.equal(y, clean)
    y.sum().backward()
    differ = int((x.grad != y.detach()).sum())
    assert abs(differ - 0.05 * N) < 5 * math.sqrt(N * 0.05 * 0.95)
    assert set(x.grad.unique().tolist()) == set(y.detach().unique().tolist())


def test_a_rate_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"flip_rate: 1\.1 .* 0 to 1"):
        PackedDropout(flip_rate=1.1)
