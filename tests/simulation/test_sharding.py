"""What one of several processes holds, by the rule of its engine; the rule itself was read off real processes."""

from functools import cache

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from pmexp.config import Part
from pmexp.simulation import Prediction, predict, sharding_of
from pmexp.simulation.sharding import _BUCKET

TOKENS = ((2, 8), torch.int64)
SHAPES = {"input_ids": TOKENS, "labels": ((2,), torch.int64)}
# (engine, accumulated batches) -> bytes of parameters, gradients and optimizer in the update, as multiples of
# the parameters' bytes. On 2 real processes ddp took 4.0 in all, zero 3.0 and fsdp 2.0 before the update makes
# its own.
IN_UPDATE = {
    (None, 1): (1, 1, 2),
    (Part.ddp, 1): (1, 1, 2),
    (Part.ddp, 2): (1, 2, 2),
    (Part.zero1, 1): (1.5, 0.5, 1),
    (Part.zero1, 2): (1.5, 2, 1),
    (Part.zero2, 1): (1.5, 0.5, 1),
    (Part.zero2, 2): (1.5, 1.5, 1),
    (Part.fsdp, 1): (0.5, 0.5, 1),
    (Part.fsdp, 2): (0.5, 0.5, 1),
}


def bert() -> nn.Module:
    config = BertConfig(
        vocab_size=4000, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    return BertForSequenceClassification(config)


@cache
def simulated(part: Part | None, accumulate: int) -> Prediction:
    sharding = sharding_of(part and part.value, 2, accumulate)
    return predict(bert, SHAPES, like="cpu", accumulate=accumulate, sharding=sharding)


@pytest.mark.parametrize(("part", "accumulate"), list(IN_UPDATE))
def test_each_category_has_the_share_of_its_engine(part: Part | None, accumulate: int) -> None:
    """The update's temporaries are twice the gradient, and shared as the state is; buffers are not trained."""
    size = sum(parameter.nbytes for parameter in bert().parameters())
    peak = simulated(part, accumulate).peaks["update"].by_category
    shares = [peak[name] / size for name in ("parameters", "gradients", "optimizer")]
    assert shares == pytest.approx(IN_UPDATE[part, accumulate], rel=0.01)
    whole = simulated(None, accumulate).peaks["update"].by_category["temporaries"]
    share = 0.5 if part in (Part.zero1, Part.zero2, Part.fsdp) else 1.0
    assert peak["temporaries"] == pytest.approx(whole * share, rel=0.01)


@pytest.mark.parametrize(
    ("part", "frozen", "parameters"),
    [(None, 1, 1), (Part.ddp, 1, 1), (Part.zero2, 1, 1.5), (Part.fsdp, 0.5, 0.5)],
)
def test_frozen_weights_are_split_by_fsdp_alone(part: Part | None, frozen: float, parameters: float) -> None:
    """As on 2 real processes: tests/systems/test_engines.py."""

    def build() -> nn.Module:
        model = bert()
        model.bert.embeddings.requires_grad_(False)  # type: ignore[union-attr, operator]
        return model

    sizes = {
        kind: sum(p.nbytes for p in build().parameters() if p.requires_grad is kind) for kind in (True, False)
    }
    sharding = sharding_of(part and part.value, 2, 1)
    peak = predict(build, SHAPES, like="cpu", sharding=sharding).peaks["update"].by_category
    buffers = sum(buffer.nbytes for buffer in bert().buffers())
    assert peak["frozen"] == sizes[False] * frozen
    assert peak["parameters"] == (sizes[True] + buffers) * parameters


def test_deepspeed_takes_its_bucket_in_backward() -> None:
    peaks = simulated(Part.zero2, 1).peaks
    assert peaks["backward"].by_category["temporaries"] >= _BUCKET
    assert peaks["forward"].by_category["temporaries"] < _BUCKET
