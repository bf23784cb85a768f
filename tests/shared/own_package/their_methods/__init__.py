"""Somebody's package: a variant, a method, a metric, a loader and a model for pmexp."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.metrics.task_metrics import Evaluation
from pmexp.variants.method import Method


class TheirDropout(nn.Dropout):
    """nn.Dropout with a mask of `width` bytes an element."""

    def __init__(self, p: float = 0.5, inplace: bool = False, width: int = 1) -> None:
        super().__init__(p, inplace)
        self.dtype = torch.bool if width == 1 else torch.int16

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        keep = (torch.rand_like(input) >= self.p).to(self.dtype)
        return input * keep / (1 - self.p)


def save_halves(model: nn.Module) -> Method:
    def pack(tensor: Tensor) -> Any:
        return (tensor.to(torch.bfloat16) if tensor.dtype is torch.float32 else tensor), tensor.dtype

    hooks = lambda: saved_tensors_hooks(pack, lambda saved: saved[0].to(saved[1]))  # noqa: E731
    return Method(report={"dtype": "bfloat16"}, forward=hooks)


def load_stripes(config: DatasetConfig) -> Dataset:
    labels = np.arange(96) % 2
    pictures = np.random.default_rng(0).random((96, 1, 8, 8), np.float32)
    pictures[labels == 1, :, 3] += 2
    split = Split(pictures, labels)
    return Dataset(split, split.take(np.arange(32)), split.take(np.arange(32)), ["none", "stripe"])


def recall_of_stripes(evaluation: Evaluation) -> float:
    stripes = evaluation.true == 1
    return float((evaluation.predicted[stripes] == 1).mean())


class _Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Classifier(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(width, classes)

    def forward(self, pixel_values: Tensor) -> _Output:
        return _Output(self.head(self.inside(pixel_values)))


def build(config: Any, dataset: Dataset, width: int = 32) -> nn.Module:
    return Classifier(width, len(dataset.classes))
