"""Makes vision transformers for image classification."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageClassification, PreTrainedModel

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.pictures import Pictures
from pmexp.errors import UserError
from pmexp.models.architectures import vision_of
from pmexp.models.base import TaskModel, from_architecture, from_configuration, hf_fields
from pmexp.models.checkpoint import Loaded, load_pretrained, locate
from pmexp.models.colours import BY_DEFAULT, Colours, colours_of
from pmexp.models.examples import Examples, PictureExamples, TensorExamples

_SIZES = ("image_size", "patch_size", "num_channels")  # fields of a configuration


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Builds the image model that `config` describes, for the classes of `dataset`."""
    if config.model.positions:
        raise UserError("model.positions: an image model has as many as its patches; leave it null")
    if config.model.pretrained:
        folder = locate(config.model)
        loaded = load_pretrained(AutoModelForImageClassification, folder, config, dataset.classes)
        loaded, colours = with_colours(loaded, folder, dataset.train.inputs)
    else:
        loaded, colours = Loaded(untrained(config, len(dataset.classes))), BY_DEFAULT
    module = loaded.module
    check_images(module, dataset.train.inputs)
    vision = vision_of(module.config)
    size, patches = vision.image_size, (vision.image_size // vision.patch_size) ** 2

    def examples(split: Split, length: int) -> Examples:
        labels = torch.from_numpy(split.labels)
        if isinstance(split.inputs, Pictures):
            return PictureExamples(split.inputs, labels, size, config.seed, colours)
        return TensorExamples({"pixel_values": torch.from_numpy(split.inputs)}, labels, colours)

    return loaded.task_model(examples, patches + 1)


def untrained(config: RunConfig, classes: int) -> PreTrainedModel:
    """The architecture of the configuration with random weights; it needs no data and no checkpoint."""
    hf_config = from_architecture(config, **hf_fields(config, classes))
    return from_configuration(AutoModelForImageClassification, hf_config, config.dataset.objective)


def with_colours(loaded: Loaded, folder: Path, inputs: object) -> tuple[Loaded, Colours]:
    """Returns how the checkpoint of `folder` takes pixels of 8 bits, and `loaded` with that in its record.

    inputs: of the training split. Numbers that a loader gives in float32 are taken as they are.
    """
    channels = 3
    if isinstance(inputs, np.ndarray):
        if inputs.dtype != np.uint8:
            return loaded, BY_DEFAULT
        channels = inputs.shape[1]
    colours = colours_of(folder, channels)
    return loaded._replace(weights=loaded.weights + colours.record()), colours


def check_images(module: PreTrainedModel, inputs: object) -> None:
    """Raises UserError for images of another shape than the model takes; `Pictures` are cut to it.

    So it does for a model that does not say how large its pictures and its patches are.
    """
    vit = vision_of(module.config)
    if lacking := [name for name in _SIZES if not isinstance(getattr(vit, name, None), int)]:
        raise UserError(
            f"model.kind: {type(module).__name__} has no {lacking[0]} of one number in its configuration, as "
            "vision transformers have; choose one that has"
        )
    if isinstance(inputs, Pictures):  # these are RGB, and are cut to the model's size
        given: tuple[int, ...] = (3, vit.image_size, vit.image_size)
    else:
        assert isinstance(inputs, np.ndarray)
        given = inputs.shape[1:]
    wanted = (vit.num_channels, vit.image_size, vit.image_size)
    if given != wanted:
        raise UserError(
            f"model.architecture: takes images of (channels, height, width) {wanted}, "
            f"the dataset has {given}; set num_channels and image_size to the dataset's"
        )
