"""Data parallelism on two processes: what the ranks draw, and that training is exact and repeats.

The convention is that of nn.Dropout: masks follow torch's generator, so ranks that see different samples are
seeded differently (seed + rank). One seed for all gives every rank the same masks: still unbiased, but the
noise of the ranks no longer averages out.
"""

from typing import Any

import pytest
import torch

import two_ranks
from dropout_cases import each_name

pytestmark = pytest.mark.slow
PerRank = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> PerRank:
    return two_ranks.run(tmp_path_factory.mktemp("ranks"))


@each_name
def test_ranks_seeded_apart_draw_unrelated_masks(ranks: PerRank, name: str) -> None:
    """The share of 10 000 elements that both keep is 1/4 at p = 0.5, with a standard error of 0.0043."""
    first, second = (rank[f"{name} own"] for rank in ranks)
    assert abs((first * second).mean() / 4 - 0.25) < 5 * 0.0043


@each_name
def test_ranks_that_share_a_seed_share_their_masks(ranks: PerRank, name: str) -> None:
    first, second = (rank[f"{name} shared"] for rank in ranks)
    assert torch.equal(first, second)


def assert_same_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    for what in ("losses", "weights"):
        assert all(torch.equal(a, b) for a, b in zip(one[what], other[what], strict=True)), what


@each_name
def test_gradients_are_averaged_over_the_ranks(ranks: PerRank, name: str) -> None:
    for (mean, first), (same, second) in zip(*(rank[f"{name} averaged"] for rank in ranks), strict=True):
        assert torch.equal(mean, first / 2 + second / 2)  # halving is exact
        assert torch.equal(mean, same)


@each_name
def test_a_run_with_the_same_seeds_repeats_bit_for_bit(ranks: PerRank, name: str) -> None:
    for rank in ranks:
        assert_same_run(rank[f"{name} run first"], rank[f"{name} run again"])
    first, second = (rank[f"{name} run first"] for rank in ranks)
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))
    assert not torch.equal(first["losses"][0], second["losses"][0])


@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
@each_name
def test_checkpointing_changes_nothing(ranks: PerRank, name: str, mode: str) -> None:
    for rank in ranks:
        assert_same_run(rank[f"{name} run first"], rank[f"{name} run {mode}"])


@each_name
def test_the_seeds_matter(ranks: PerRank, name: str) -> None:
    """Rank 0 has the same seed and data in both runs: its first loss is the same, its weights are not."""
    own, shared = ranks[0][f"{name} run first"], ranks[0][f"{name} run shared"]
    assert torch.equal(own["losses"][0], shared["losses"][0])
    assert not torch.equal(own["losses"][1], shared["losses"][1])
