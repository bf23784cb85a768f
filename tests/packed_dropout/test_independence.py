"""The bits of a mask: their share, and that nothing in a training run draws the same or a related mask twice.

Seeds are fixed, so a test passes always or never. The bounds say how rarely an ideal generator would miss them.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dropout_cases import DROPOUTS, Dropout, each_dropout
from pmexp.packed_dropout import cpu, ops, unpack_bits

each_rate = pytest.mark.parametrize("p", [0.1, 0.3, 0.5])


def packed_mask(numel: int, seed: int, p: float) -> Tensor:
    return ops.packed_dropout(torch.ones(numel, dtype=torch.bfloat16), torch.tensor([seed]), p, 1)[1]


def standardised(kept: Tensor, p: float) -> Tensor:
    """Returns numbers of mean 0 and variance 1 where bits are independent and kept with probability 1 - p."""
    return (kept.float() - (1 - p)) / (p * (1 - p)) ** 0.5


def assert_rows_unrelated(rows: Tensor) -> None:
    """Asserts that no two of the rows, standardised, are correlated.

    A pair's product sum is about normal with variance n. The largest of m pairs stays below 6.5 standard errors
    (m <= 524 000: missed by chance with probability 4e-5), and the sum of their squares is chi-square with m
    degrees of freedom, here within 5 of its standard deviations (6e-7).
    """
    count, n = rows.shape
    z = torch.triu_indices(count, count, offset=1)
    pairs = (rows @ rows.T / n**0.5)[z[0], z[1]].double()
    assert pairs.abs().max() < 6.5
    assert abs(pairs.square().sum() - len(pairs)) < 5 * (2 * len(pairs)) ** 0.5


@pytest.mark.parametrize("side", ["rows", "columns"])
@each_rate
@each_dropout
def test_rows_and_columns_of_one_mask(drop: Dropout, p: float, side: str) -> None:
    torch.manual_seed(1)
    kept = standardised(drop(torch.ones(1024, 1024), p) != 0, p)
    assert_rows_unrelated(kept if side == "rows" else kept.T)


@each_rate
@each_dropout
def test_calls_one_after_the_other(drop: Dropout, p: float) -> None:
    """Layers of one step and steps of one run draw so."""
    torch.manual_seed(2)
    x = torch.ones(8192)
    assert_rows_unrelated(standardised(torch.stack([drop(x, p) != 0 for _ in range(200)]), p))


@each_rate
@each_dropout
def test_neighbouring_seeds_of_torch(drop: Dropout, p: float) -> None:
    """Two runs have such seeds, and so have the ranks of one."""
    rows = []
    for seed in range(200):
        torch.manual_seed(seed)
        rows.append(drop(torch.ones(8192), p) != 0)
    assert_rows_unrelated(standardised(torch.stack(rows), p))


@pytest.mark.parametrize("shift", [0, 31, 32, 61], ids=lambda shift: f"bit-{shift}")
@each_rate
def test_neighbouring_keys_of_philox(p: float, shift: int) -> None:
    keys = [number << shift for number in range(200 if shift < 55 else 2)]
    packed = torch.stack([packed_mask(8192, key, p) for key in keys])
    assert_rows_unrelated(standardised(unpack_bits(packed.flatten(), (len(keys), 8192)), p))


@each_rate
def test_serial_correlation(p: float) -> None:
    """There is none at any lag up to 128, among them those that the layout of the random words makes special, and some beyond.

    1: neighbouring counters. 8, 16, 24: the words of one counter. 32: the next block. About normal with variance
    1 / n each; 133 of them stay below 5.5 standard errors but with probability 5e-6. Lag 1 is the runs test as
    well: a run ends where neighbours differ.
    """
    n = 2**20
    kept = standardised(unpack_bits(packed_mask(n, 3, p), (n,)), p)
    for lag in [*range(1, 129), 256, 1024, 4096, 65536, 2**19]:
        correlation = torch.dot(kept[lag:], kept[:-lag]) / (n - lag)
        assert abs(correlation) < 5.5 / (n - lag) ** 0.5, lag


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    """Returns chi-square, with bins put together from the front until each expects at least 5."""
    expected = probabilities.double() * counts.sum()
    while expected[0] < 5:
        counts, expected = (torch.cat([t[:2].sum(0, keepdim=True), t[2:]]) for t in (counts, expected))
    return float(((counts - expected) ** 2 / expected).sum())


POPCOUNT = torch.tensor([byte.bit_count() for byte in range(256)])


def bytes_by_popcount(byte_counts: Tensor) -> Tensor:
    return torch.zeros(9, dtype=byte_counts.dtype).index_add_(0, POPCOUNT, byte_counts)


def binomial(p: float) -> Tensor:
    """Probability of 0 to 8 kept elements in a byte."""
    choose = torch.tensor([1, 8, 28, 56, 70, 56, 28, 8, 1]).double()
    kept = torch.arange(9)
    return choose * (1 - p) ** kept * p ** (8 - kept)


@each_rate
def test_bytes_and_pairs_of_bytes(p: float) -> None:
    """Chi-square is small over all values of a byte, its popcounts, and (at p = 0.5) of two neighbouring bytes.

    255 and 8 degrees of freedom are exceeded with probability 1e-6 at 377 and 42.7. With 65 535 the statistic is
    about normal with standard deviation 362; the bound is 5 of them.
    """
    packed = packed_mask(8 * 2**21, 4, p).long()
    probabilities = (1 - p) ** POPCOUNT.double() * p ** (8 - POPCOUNT).double()
    counts = torch.bincount(packed, minlength=256)
    order = probabilities.argsort()
    assert chi_square(counts[order], probabilities[order]) < 377
    assert chi_square(bytes_by_popcount(counts), binomial(p)) < 42.7
    if p == 0.5:
        pairs = torch.bincount(packed[::2] * 256 + packed[1::2], minlength=65536)
        assert abs(chi_square(pairs, torch.full((65536,), 2.0**-16)) - 65535) < 5 * 362


@pytest.mark.slow
@pytest.mark.skipif(not cpu.available_backends(), reason="the torch reference takes minutes for it")
@each_rate
def test_no_bias_in_a_thousand_million_draws(p: float) -> None:
    """The kept share is within 4 standard errors of 1 - p (missed by chance with probability 6e-5).

    That is 3.8e-5 at p = 0.1: an 8-bit threshold is off by 2.3e-3, a 16-bit one by 6e-6, which only the
    bit-exact tests of the core tell apart. With the scale exact to a rounding, E[y] = x to within as much.
    """
    core = cpu.Core(cpu.available_backends()[0])
    chunk, counts = 2**24, torch.zeros(256, dtype=torch.int64)
    x = torch.ones(chunk, dtype=torch.bfloat16)
    y, packed = torch.empty_like(x), torch.empty(chunk // 8, dtype=torch.uint8)
    draws = 60 * chunk
    for seed in range(60):
        core.dropout_into(y, packed, x, torch.tensor([seed]), p, 1)
        counts += torch.bincount(packed, minlength=256)
    share = (counts * POPCOUNT).sum().item() / draws
    assert abs(share - (1 - p)) < 4 * (p * (1 - p) / draws) ** 0.5
    assert chi_square(bytes_by_popcount(counts), binomial(p)) < 42.7
    scale = core.packed_dropout(torch.ones(64), torch.tensor([0]), p, 1)[0].max().item()
    assert abs(scale * (1 - p) - 1) < torch.finfo(torch.float32).eps


@pytest.mark.parametrize("draw", DROPOUTS.values(), ids=DROPOUTS)
@each_rate
def test_outputs_average_to_the_input(draw: Callable[..., Tensor], p: float) -> None:
    """They do within 5 standard errors, of which one is x * sqrt(p / (1 - p) / n)."""
    torch.manual_seed(5)
    n = 2**22
    mean = draw(torch.full((n,), 3.0), p).double().mean()
    assert abs(mean - 3.0) < 5 * 3.0 * (p / (1 - p) / n) ** 0.5
