"""A net of two layers around dropout, and samples that it can learn."""

from typing import Any

import torch
from torch import nn

from pmexp.models.examples import TensorExamples


class Net(nn.Module):
    """Two layers around dropout, called as the models of transformers are."""

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), dropout, nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutput

        return SequenceClassifierOutput(logits=self.layers(x))


def examples(n: int, seed: int) -> TensorExamples:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return TensorExamples({"x": x}, (x.sum(-1) > 0).long() + (x[:, 0] > 1).long())
