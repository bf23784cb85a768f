"""Masked tokens: BERT's shares, the same choice wherever and whenever a row is asked for."""

import torch

from pmexp.models.examples import EVALUATION, IGNORED, MaskedTokens

MASK, VOCABULARY = 4, 1000


def blocks(rows: int = 400, positions: int = 64) -> MaskedTokens:
    tokens = torch.randint(5, VOCABULARY, (rows, positions - 2), generator=torch.Generator().manual_seed(0))
    return MaskedTokens(tokens.int().numpy(), (2, 3), torch.tensor([2, 3]), MASK, VOCABULARY, seed=3)


def test_shares_are_those_of_bert() -> None:
    examples = blocks()
    batch = examples.batch(torch.arange(400), epoch=0)
    chosen = batch.labels != IGNORED
    eligible = 400 * 62
    assert not chosen[:, [0, -1]].any()
    assert abs(chosen.sum() / eligible - 0.15) < 4 * (0.15 * 0.85 / eligible) ** 0.5
    original, shown = examples.rows(torch.arange(400)), batch.inputs["input_ids"]
    assert torch.equal(batch.labels[chosen], original[chosen]) and torch.equal(
        shown[~chosen], original[~chosen]
    )
    n = int(chosen.sum())
    for share, actual in ((0.8, shown[chosen] == MASK), (0.1, shown[chosen] == original[chosen])):
        assert abs(actual.double().mean() - share) < 4 * (share * (1 - share) / n) ** 0.5 + 1 / VOCABULARY
    assert batch.targets == n


def test_a_row_is_masked_alike_in_every_batch_of_an_epoch_and_otherwise_in_the_next() -> None:
    examples = blocks(9, 30)
    whole = examples.batch(torch.arange(9), epoch=2).labels
    assert torch.equal(examples.batch(torch.tensor([7, 1]), epoch=2).labels, whole[[7, 1]])
    others = [examples.batch(torch.arange(9), epoch).labels for epoch in (EVALUATION, 0, 1)]
    assert not any(torch.equal(whole, other) for other in others)
    assert torch.equal(others[0], blocks(9, 30).batch(torch.arange(9), EVALUATION).labels)
