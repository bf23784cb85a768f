"""Fake tensors that keep their values, and Longformer, whose forward asks its masks for them."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LongformerConfig, LongformerForSequenceClassification

from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.simulation import Prediction, predict
from pmexp.simulation.internals import DATA_DEPENDENT, fake_tensors
from pmexp.simulation.known_values import KnownValues
from pmexp.systems.flash import Flash
from pmexp.variants.byte_mask import ByteMaskDropout
from real_steps import real_peak

SAMPLES, LENGTH = 2, 512
TOKENS = ((SAMPLES, LENGTH), torch.int64)
SHAPES = {"input_ids": TOKENS, "attention_mask": TOKENS, "labels": ((SAMPLES,), torch.int64)}


def longformer(layers: int = 2) -> nn.Module:
    config = LongformerConfig(
        vocab_size=20, hidden_size=64, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=128,
        attention_window=32, max_position_embeddings=LENGTH + 2,
    )  # fmt: skip
    return LongformerForSequenceClassification(config)


def prepare(model: nn.Module, system: str, dropout: Any) -> None:
    if system == "sliding":
        Flash().before_variant(model, torch.device("cpu"), half=False)
    replace_dropout(model, dropout)


def simulated(system: str, dropout: Any, like: str = "cpu", **options: Any) -> Prediction:
    change = partial(prepare, system=system, dropout=dropout)
    return predict(options.pop("build", longformer), SHAPES, prepare=change, like=like, **options)


@pytest.mark.parametrize("dropout", [ByteMaskDropout, PackedDropout])
@pytest.mark.parametrize("system", ["eager", "sliding"])
def test_a_longformer_takes_what_a_real_step_does_within_one_percent(system: str, dropout: Any) -> None:
    def build() -> nn.Module:
        model = longformer()
        prepare(model, system, dropout)
        return model

    ids = torch.ones(SAMPLES, LENGTH, dtype=torch.int64)
    real = real_peak(build, {"input_ids": ids, "attention_mask": ids.clone()}, ids[:, 0].clone() * 0)
    assert simulated(system, dropout).peak_bytes == pytest.approx(real, rel=0.01)


def test_nothing_is_saved_of_the_length_squared_under_flash() -> None:
    """Twice the layers are twice the activations of one, and far below one length x length matrix a head."""
    one, two = (
        simulated("sliding", PackedDropout, "cuda", build=partial(longformer, layers=n)) for n in (1, 2)
    )
    more = two.peak.by_category["activations"] - one.peak.by_category["activations"]
    assert 0 < more < 4 * SAMPLES * 4 * LENGTH**2


def test_what_follows_from_constants_is_known() -> None:
    with fake_tensors(), KnownValues():
        mask = torch.ones(2, 8, dtype=torch.int64)
        mask[:, 0] = 2
        view = mask[0]
        assert (mask == 2).nonzero().shape == (2, 2)
        mask.zero_()
        assert int(view.sum()) == 0 and not bool((mask > 0).any())
        assert torch.empty(2, 8)[mask == 0].shape == (16,)
        assert torch.empty(2, 8, 3).masked_select((mask == 0)[..., None]).shape == (48,)


def test_of_what_is_too_large_one_repetition_is_computed() -> None:
    length = 2**14
    with fake_tensors(), KnownValues():
        square = torch.ones(1, length, 1) * torch.arange(length)[None, None]
        row = torch.where(square > 1, 1.0, 0.0)[:, 7]
        row[row == 0] = 5.0
        assert row.max().item() == 5.0 and row.sum().item() == length - 2 + 10


def test_no_draw_lies_below_zero() -> None:
    with fake_tensors(), KnownValues():
        assert not torch.rand([]) < 0.0 and not bool((torch.rand(3) < 0).any())


@pytest.mark.parametrize("draw", ["at a rate", "changed", "normal"])
def test_any_other_answer_of_a_draw_is_unknown(draw: str) -> None:
    with fake_tensors(), KnownValues():
        if draw == "at a rate":
            below = torch.rand([]) < 0.1
        elif draw == "changed":
            below = torch.rand([]).sub_(1) < 0
        else:
            below = torch.randn([]) < 0
        with pytest.raises(DATA_DEPENDENT):
            bool(below)


@pytest.mark.parametrize("write", ["copy", "through a view", "random", "repeated"])
def test_what_is_overwritten_by_the_unknown_is_forgotten(write: str) -> None:
    def written(mask: Tensor) -> Tensor:
        unknown = torch.empty(8)
        if write == "copy":
            mask.copy_(unknown)
        elif write == "through a view":
            mask.view(2, 4)[1].add_(unknown[4:])
        elif write == "random":
            mask.bernoulli_(0.5)
        else:  # one place of a repeated value is written: what shares its memory is not followed
            rows = torch.ones(1, 8).expand(2**20, 8) * torch.ones(2**20, 1)
            rows[3].zero_()
            mask = rows[0]
        return mask

    with fake_tensors(), KnownValues(), pytest.raises(DATA_DEPENDENT):
        written(torch.ones(8)).sum().item()
