"""Makes a run's module and its batch's shapes without data, checkpoint or memory, for method=simulate."""

from dataclasses import replace

import torch
from torch import nn

from pmexp import models
from pmexp.config import INPUTS_OF, LANGUAGE, Inputs, ModelKind, Objective, RunConfig
from pmexp.models import positions
from pmexp.models.architectures import vision_of
from pmexp.models.base import from_architecture
from pmexp.simulation.predict import Shapes

_CLASSES = 2  # their number is known with the data, and of no consequence for memory


def skeleton(config: RunConfig, length: int) -> nn.Module:
    """The model of `model.architecture`, with positions for `length` tokens if it has fewer."""
    module: nn.Module = models.untrained(config, _CLASSES)
    if config.takes_images or length <= positions.limit(module):
        return module
    longer: nn.Module = models.untrained(
        replace(config, model=replace(config.model, positions=length)), _CLASSES
    )
    return longer


def batch_shapes(config: RunConfig, batch: int, length: int) -> Shapes:
    """Shape and dtype of each input that the run's examples give, and of the labels (models/examples.py)."""
    if config.takes_images:
        vit = vision_of(from_architecture(config))
        pixels = (batch, vit.num_channels, vit.image_size, vit.image_size)
        return {"pixel_values": (pixels, torch.float32), "labels": ((batch,), torch.int64)}
    tokens = ((batch, length), torch.int64)
    if config.dataset.objective in LANGUAGE:  # blocks without padding
        return {"input_ids": tokens, "labels": tokens}
    if config.dataset.objective is Objective.seq2seq:
        assert config.dataset.max_target_length
        target = ((batch, config.dataset.max_target_length), torch.int64)
        return {"input_ids": tokens, "attention_mask": tokens, "decoder_input_ids": target, "labels": target}
    names = ["input_ids", "attention_mask"]
    if config.model.kind is ModelKind.vilt:
        vilt = from_architecture(config)
        pixels = (batch, vilt.num_channels, vilt.image_size, vilt.image_size)
        texts = dict.fromkeys([*names, "token_type_ids"], tokens)
        return {**texts, "pixel_values": (pixels, torch.float32), "labels": ((batch,), torch.int64)}
    if config.model.kind is ModelKind.bert and INPUTS_OF[config.dataset.kind] is Inputs.texts:
        names.append("token_type_ids")
    of_words = config.dataset.objective is Objective.token_classification
    return {**dict.fromkeys(names, tokens), "labels": tokens if of_words else ((batch,), torch.int64)}
