"""Vision transformers for image classification."""

import numpy as np
import torch
from transformers import AutoModelForImageClassification, PreTrainedModel

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.pictures import Pictures
from pmexp.errors import UserError
from pmexp.models.base import TaskModel, from_architecture, hf_fields
from pmexp.models.checkpoint import Loaded, load_pretrained, locate
from pmexp.models.examples import Examples, PictureExamples, TensorExamples


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    if config.model.positions:
        raise UserError("model.positions: an image model has as many as its patches; leave it null")
    if config.model.pretrained:
        folder = locate(config.model)
        loaded = load_pretrained(AutoModelForImageClassification, folder, config, dataset.classes)
    else:
        loaded = Loaded(untrained(config, len(dataset.classes)), "random", "")
    module = loaded.module
    size = module.config.image_size
    if not isinstance(dataset.train.inputs, Pictures):
        _check_images(module, dataset)
    patches = (size // module.config.patch_size) ** 2

    def examples(split: Split, length: int) -> Examples:
        labels = torch.from_numpy(split.labels)
        if isinstance(split.inputs, Pictures):
            return PictureExamples(split.inputs, labels, size, config.seed)
        return TensorExamples({"pixel_values": torch.from_numpy(split.inputs)}, labels)

    return TaskModel(module, examples, patches + 1, loaded.weights, loaded.architecture)


def untrained(config: RunConfig, classes: int) -> PreTrainedModel:
    """The architecture of the configuration with random weights; it needs no data and no checkpoint."""
    hf_config = from_architecture(config, **hf_fields(config, classes))
    return AutoModelForImageClassification.from_config(hf_config, dtype=torch.float32)


def _check_images(module: PreTrainedModel, dataset: Dataset) -> None:
    assert isinstance(dataset.train.inputs, np.ndarray)
    vit, given = module.config, dataset.train.inputs.shape[1:]
    wanted = (vit.num_channels, vit.image_size, vit.image_size)
    if given != wanted:
        raise UserError(
            f"model.architecture: takes images of (channels, height, width) {wanted}, "
            f"the dataset has {given}; set num_channels and image_size to the dataset's"
        )
