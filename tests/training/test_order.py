"""The order of an epoch, texts of similar length together, and batches cut to their own longest text."""

import copy
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from pmexp.config import SystemConfig, TrainConfig
from pmexp.models.examples import PaddedTexts, TensorExamples
from pmexp.packed_dropout import PackedDropout
from pmexp.systems.system import System
from pmexp.training.loop import Training
from pmexp.training.order import epoch_order
from pmexp.training.resuming import restore, state_of
from small_runs import TINY_BERT, Runs


def texts(lengths: list[int], bucketed: bool, width: int = 64) -> PaddedTexts:
    """Texts whose tokens are their row's number plus one, on the left of `width` places."""
    ids = torch.zeros(len(lengths), width, dtype=torch.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = row + 1
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).int()}
    return PaddedTexts(TensorExamples(inputs, torch.arange(len(lengths))), bucketed)


LENGTHS = st.lists(st.integers(1, 64), min_size=4, max_size=300)


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_an_order_visits_every_text_once_and_is_of_seed_and_epoch(
    lengths: list[int], batch_size: int, seed: int, bucketed: bool
) -> None:
    examples = texts(lengths, bucketed)
    order = epoch_order(examples, seed, 1, batch_size)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(order, epoch_order(examples, seed, 1, batch_size))


def test_without_buckets_the_order_is_that_of_padding_to_max() -> None:
    plain, longest = texts([3] * 50, False), texts([3] * 50, False)._padded
    assert torch.equal(epoch_order(plain, 7, 2, 8), epoch_order(longest, 7, 2, 8))
    expected = np.random.default_rng((7, 2)).permutation(50)
    assert epoch_order(plain, 7, 2, 8).tolist() == expected.tolist()


def test_buckets_hold_similar_lengths_and_neither_seed_nor_epoch_repeats_an_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 65, 2000).tolist()
    examples = texts(lengths, True)

    def spread(examples: PaddedTexts) -> float:
        batches = epoch_order(examples, 0, 0, 8)[:2000].view(-1, 8)
        of_batches = examples.lengths[batches]
        return float((of_batches.amax(1) - of_batches.amin(1)).float().mean())

    assert spread(examples) < 3 < 40 < spread(texts(lengths, False))
    orders = [epoch_order(examples, *of, 8).tolist() for of in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3
    longest = examples.lengths[torch.tensor(orders[0]).view(-1, 8)].amax(1).float()
    assert abs(float(torch.corrcoef(torch.stack([longest, torch.arange(250.0)]))[0, 1])) < 0.2  # not sorted


@pytest.mark.parametrize(("longest", "width"), [(1, 8), (8, 8), (9, 16), (64, 64)])
def test_a_batch_is_as_long_as_its_longest_text_in_eights(longest: int, width: int) -> None:
    examples = texts([1, longest, 1, 64], False)
    batch = examples.batch(torch.tensor([0, 1, 2]), 0)
    assert batch.inputs["input_ids"].shape == batch.inputs["attention_mask"].shape == (3, width)
    assert batch.inputs["input_ids"].sum(1).tolist() == [1, 2 * longest, 3]
    assert batch.labels.tolist() == [0, 1, 2] and batch.positions == (3 * width, 3 * width - longest - 2)


def test_a_text_of_an_odd_width_is_not_lengthened() -> None:
    assert texts([13], False, width=13).batch(torch.tensor([0]), 0).inputs["input_ids"].shape == (1, 13)


def test_runs_record_their_padding_and_bucketed_ones_have_little(runs: Runs, few_news: str) -> None:
    sizes = ["dataset.max_length=128", "train.max_steps=2", "train.batch_size=16"]
    metrics = {}
    for padding in ("max", "bucketed"):
        runs.name = padding
        keys = [f"dataset.padding={padding}", f"name={padding}", "tracking=off"]
        code, _, error = runs.train(*TINY_BERT, few_news, *sizes, *keys)
        assert code == 0, error
        (summary,) = runs.summaries().values()
        metrics[padding] = summary["metrics"]
    assert metrics["max"]["progress/padding"] > 0.3 > 0.15 > metrics["bucketed"]["progress/padding"]


class Reader(nn.Module):
    """Embeds texts and averages what is no padding, called as the models of transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.classes = nn.Embedding(64, 8), nn.Sequential(PackedDropout(0.5), nn.Linear(8, 64))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        weights = (attention_mask / attention_mask.sum(1, keepdim=True)).unsqueeze(-1)
        return SequenceClassifierOutput(logits=self.classes((self.words(input_ids) * weights).sum(1)))


def reading() -> Training:
    torch.manual_seed(3)
    train = texts(np.random.default_rng(1).integers(1, 65, 50).tolist(), True)
    config = TrainConfig(epochs=2, batch_size=4, lr=1e-2, log_every=1, accumulate=2, patience=None)
    return Training(Reader(), train, train, config, ["accuracy"], 5, System(SystemConfig()))


@pytest.mark.parametrize("cut", [3, 12, 17])
def test_a_bucketed_training_goes_on_bit_for_bit(cut: int) -> None:
    whole = reading()
    expected = list(whole.steps())
    first = reading()
    head = list(islice(first.steps(), cut))
    state = copy.deepcopy(state_of(first))
    second = reading()
    restore(second, state)
    assert head + list(second.steps()) == expected
    assert second.progress == whole.progress and 0 < whole.progress.padding < whole.progress.positions
    weights = second.module.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in whole.module.state_dict().items())
