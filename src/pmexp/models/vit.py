"""Vision transformers for image classification."""

import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.errors import UserError
from pmexp.models.base import TaskModel, from_architecture
from pmexp.models.checkpoint import load_pretrained, locate


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    if config.model.pretrained:
        folder = locate(config.model)
        module, weights = load_pretrained(ViTForImageClassification, folder, config, dataset.classes)
    else:
        module = ViTForImageClassification(from_architecture(ViTConfig, config, dataset.classes))
        weights = "random"
    _check_images(module.config, dataset)
    patches = (module.config.image_size // module.config.patch_size) ** 2
    return TaskModel(module, _encode, patches + 1, weights)


def _encode(split: Split) -> dict[str, Tensor]:
    assert not isinstance(split.inputs, list)
    return {"pixel_values": torch.from_numpy(split.inputs)}


def _check_images(vit: ViTConfig, dataset: Dataset) -> None:
    assert not isinstance(dataset.train.inputs, list)
    given = dataset.train.inputs.shape[1:]
    wanted = (vit.num_channels, vit.image_size, vit.image_size)
    if given != wanted:
        raise UserError(
            f"model.architecture: takes images of (channels, height, width) {wanted}, "
            f"the dataset has {given}; set num_channels and image_size to the dataset's"
        )
