"""The module and the shapes of a run's batch, without data, checkpoint or memory: for method=simulate."""

from dataclasses import replace

import torch
from torch import nn

from pmexp import models
from pmexp.config import Objective, RunConfig
from pmexp.models.base import from_architecture
from pmexp.simulation.predict import Shapes

_CLASSES = 2  # their number is known with the data, and of no consequence for memory
_WITH_TOKEN_TYPES = ("bert",)


def skeleton(config: RunConfig, length: int) -> nn.Module:
    """The model of `model.architecture`, with positions for `length` tokens if it has fewer."""
    if not config.model.takes_images and length > positions_of(config):
        config = replace(config, model=replace(config.model, positions=length))
    module: nn.Module = models.untrained(config, _CLASSES)
    return module


def positions_of(config: RunConfig) -> int:
    """Tokens that a text model has positions for."""
    return config.model.positions or int(from_architecture(config).max_position_embeddings)


def batch_shapes(config: RunConfig, batch: int, length: int) -> Shapes:
    """Shape and dtype of each input and of the labels."""
    if config.model.takes_images:
        vit = from_architecture(config)
        pixels = (batch, vit.num_channels, vit.image_size, vit.image_size)
        return {"pixel_values": (pixels, torch.float32), "labels": ((batch,), torch.int64)}
    tokens = ((batch, length), torch.int64)
    names = ["input_ids", "attention_mask"]
    if config.model.kind.name in _WITH_TOKEN_TYPES:
        names.append("token_type_ids")
    every_token = config.dataset.objective is Objective.masked_lm
    return {**dict.fromkeys(names, tokens), "labels": tokens if every_token else ((batch,), torch.int64)}
