"""The module and the shapes of a run's batch, without data, checkpoint or memory: for method=simulate."""

from typing import cast

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from pmexp.config import ModelKind, RunConfig
from pmexp.models.base import from_architecture
from pmexp.simulation.predict import Shapes

_CLASSES = ["0", "1"]  # their number is known with the data, and of no consequence for memory


def skeleton(config: RunConfig, length: int, head: str) -> nn.Module:
    """The model of `model.architecture`, with positions for `length` tokens if it has fewer."""
    if config.model.kind is ModelKind.vit:
        return cast(nn.Module, ViTForImageClassification(from_architecture(ViTConfig, config, _CLASSES)))
    bert = from_architecture(BertConfig, config, _CLASSES)
    bert.max_position_embeddings = max(bert.max_position_embeddings, length)
    cls = BertForMaskedLM if head == "tokens" else BertForSequenceClassification
    return cast(nn.Module, cls(bert))


def batch_shapes(config: RunConfig, batch: int, length: int, head: str) -> Shapes:
    """Shape and dtype of each input and of the labels."""
    if config.model.kind is ModelKind.vit:
        vit = from_architecture(ViTConfig, config, _CLASSES)
        pixels = (batch, vit.num_channels, vit.image_size, vit.image_size)
        return {"pixel_values": (pixels, torch.float32), "labels": ((batch,), torch.int64)}
    tokens = ((batch, length), torch.int64)
    inputs = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask"), tokens)
    return {**inputs, "labels": tokens if head == "tokens" else ((batch,), torch.int64)}
