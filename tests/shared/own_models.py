"""Models and metrics of somebody's own, which runs name by their import paths."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pmexp.config import DatasetConfig, RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.metrics.task_metrics import Evaluation


class Mixer(nn.Module):
    """Says the classes of pictures by two layers."""

    def __init__(self, pixels: int, classes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, width), nn.GELU(), nn.Dropout(0.3), nn.Linear(width, classes)
        )

    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(logits=self.layers(pixel_values))


def build_mixer(config: RunConfig, dataset: Dataset, width: int = 8) -> nn.Module:
    pictures = dataset.train.inputs
    assert isinstance(pictures, np.ndarray)
    return Mixer(int(np.prod(pictures.shape[1:])), len(dataset.classes), width)


class DropsElsewhere(Mixer):
    """Drops by a function and inside of modules as well, at rates of its own."""

    def __init__(self, pixels: int, classes: int, width: int) -> None:
        super().__init__(pixels, classes, width)
        self.attention = nn.MultiheadAttention(classes, 1, dropout=0.15, batch_first=True)
        self.channels = nn.Dropout2d(0.25)

    def forward(self, pixel_values: Tensor) -> Any:
        logits = nn.functional.dropout(super().forward(pixel_values).logits, 0.35, self.training)
        attended = self.attention(*[logits[:, None]] * 3)[0][:, 0]
        return SimpleNamespace(logits=self.channels(attended[..., None, None])[..., 0, 0])


def build_elsewhere(config: RunConfig, dataset: Dataset) -> nn.Module:
    return DropsElsewhere(64, len(dataset.classes), 8)


class Bag(nn.Module):
    """Says a number of a text, or a class of each of its words, by the words alone."""

    def __init__(self, vocabulary: int, answers: int, each: bool) -> None:
        super().__init__()
        self.words, self.dropout, self.head = (
            nn.Embedding(vocabulary, 8),
            nn.Dropout(0.2),
            nn.Linear(8, answers),
        )
        self.each = each

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        words = self.dropout(self.words(input_ids)) * attention_mask[..., None]
        return SimpleNamespace(logits=self.head(words if self.each else words.mean(1)))


def build_bag(config: RunConfig, dataset: Dataset) -> nn.Module:
    return Bag(config.model.architecture["vocab_size"], len(dataset.classes) or 1, bool(dataset.classes))


class Answers(nn.Module):
    """Answers with so many numbers to a sample, in a tensor, or as somebody's model should."""

    def __init__(self, width: int, bare: bool) -> None:
        super().__init__()
        self.head, self.dropout, self.bare = nn.LazyLinear(width), nn.Dropout(0.1), bare

    def forward(self, **inputs: Tensor) -> Any:
        (sample, *_) = inputs.values()
        logits = self.dropout(self.head(sample.flatten(1).float()))
        return logits if self.bare else SimpleNamespace(logits=logits)


class OnAFrozenBody(Mixer):
    """Has parts that are frozen and in eval mode, one of which stays so."""

    def __init__(self, pixels: int, classes: int, width: int) -> None:
        super().__init__(pixels, classes, width)
        self.body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(pixels), nn.Sequential(nn.Dropout(0.5)))
        self.stays = nn.Dropout(0.5).eval()
        self.stays.train = lambda mode=True: self.stays  # type: ignore[method-assign]
        self.norm = nn.LayerNorm(pixels).eval()
        self.body.requires_grad_(False).eval()

    def forward(self, pixel_values: Tensor) -> Any:
        return super().forward(self.norm(self.stays(self.body(pixel_values))))


def build_on_a_frozen_body(config: RunConfig, dataset: Dataset) -> nn.Module:
    return OnAFrozenBody(64, len(dataset.classes), 8)


class Probabilities(Mixer):
    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(logits=super().forward(pixel_values).logits.softmax(-1))


def build_probabilities(config: RunConfig, dataset: Dataset) -> nn.Module:
    return Probabilities(64, len(dataset.classes), 4)


def build_answers(config: RunConfig, dataset: Dataset, width: int = 3, bare: bool = False) -> nn.Module:
    return Answers(width, bare)


def build_misfit(config: RunConfig, dataset: Dataset) -> nn.Module:
    return Mixer(7, len(dataset.classes), 4)


def build_frozen(config: RunConfig, dataset: Dataset) -> nn.Module:
    return nn.Dropout(0.1)


def build_nothing(config: RunConfig, dataset: Dataset) -> int:
    return 3


def of_reseeded_torch(evaluation: Evaluation) -> float:
    torch.manual_seed(1)
    return float(torch.rand(1))


def of_class_zero(result: Evaluation) -> float:
    """Returns the share of the samples of class 0 that are known as such."""
    return float((result.predicted[result.true == 0] == 0).mean())


def as_text(result: Evaluation) -> str:
    return "much"


def huge(result: Evaluation) -> int:
    return 10**400


def broken(result: Evaluation) -> float:
    return float(torch.zeros(2)[2])


def load_labels(config: DatasetConfig, dtype: str = "int64", tagged: bool = False) -> Dataset:
    """Texts with labels of any type, or words with tags."""
    texts: Any = [("one",), ("two",), ("three",), ("four",)]
    labels = np.arange(4).astype(dtype)
    inputs = TaggedWords(texts, [labels[i : i + 1] for i in range(4)]) if tagged else texts
    split = Split(inputs, labels)
    return Dataset(split, split, None, ["B-a", "B-b", "I-a", "O"] if dtype == "int64" else [])


def load_odd(config: DatasetConfig, odd: str) -> Dataset:
    """Pictures of two classes, of which one thing is as no other loader has it."""
    pictures, labels = np.random.default_rng(0).random((40, 1, 8, 8), np.float32), np.arange(40) % 2
    inputs: dict[str, Any] = {
        "generator": (picture for picture in pictures),
        "object": pictures.astype(object),
        "float64": pictures.astype(np.float64),
        "reversed": np.ascontiguousarray(pictures[::-1])[::-1],
    }
    classes: Any = {"a", "b"} if odd == "set" else ["a", "b"]
    val = Split(pictures[:10], labels[:10])
    return Dataset(Split(inputs.get(odd, pictures), labels[::-1][::-1]), val, val, classes)


def build_seeded(config: RunConfig, dataset: Dataset) -> nn.Module:
    torch.manual_seed(11)
    return build_mixer(config, dataset)


def build_of_numpy(config: RunConfig, dataset: Dataset) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        model = build_mixer(config, dataset)
    for weight in model.parameters():
        weight.data = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, weight.shape)).float()
    return model
