"""What the record says of a model's parameters and precision."""

import torch
from torch import nn

from pmexp.measure.precision import precision


def test_parameters_are_counted_by_dtype() -> None:
    assert precision(nn.Linear(3, 2), "fp32") == {"precision": "fp32", "parameters_float32": 8}
    mixed = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 4).to(torch.bfloat16))
    assert precision(mixed, "bf16 autocast") == {
        "precision": "bf16 and fp32 weights, bf16 autocast system",
        "parameters_float32": 14,
        "parameters_bfloat16": 12,
    }


def test_those_that_train_are_counted_where_others_are_frozen() -> None:
    module = nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 2))
    assert precision(module, "fp32")["parameters_trained"] == 6
    assert precision(module.requires_grad_(False), "fp32")["parameters_trained"] == 0
