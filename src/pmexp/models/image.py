"""Makes vision transformers for image classification."""

import logging
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
from pmexp.models.checkpoint import Loaded, from_folder, load_pretrained, locate
from pmexp.models.checkpoint_files import read_json
from pmexp.models.examples import Examples, PictureExamples, TensorExamples
from pmexp.models.images import MEAN, STD

log = logging.getLogger(__name__)

_SIZES = ("image_size", "patch_size", "num_channels")  # fields of a configuration


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Builds the image model that `config` describes, for the classes of `dataset`."""
    if config.model.positions:
        raise UserError("model.positions: an image model has as many as its patches; leave it null")
    if config.model.pretrained:
        folder = locate(config.model)
        loaded = load_pretrained(AutoModelForImageClassification, folder, config, dataset.classes)
        if isinstance(dataset.train.inputs, Pictures):
            loaded = loaded._replace(weights=loaded.weights + other_normalisation(folder))
    else:
        loaded = Loaded(untrained(config, len(dataset.classes)))
    module = loaded.module
    check_images(module, dataset.train.inputs)
    vision = vision_of(module.config)
    size, patches = vision.image_size, (vision.image_size // vision.patch_size) ** 2

    def examples(split: Split, length: int) -> Examples:
        labels = torch.from_numpy(split.labels)
        if isinstance(split.inputs, Pictures):
            return PictureExamples(split.inputs, labels, size, config.seed)
        return TensorExamples({"pixel_values": torch.from_numpy(split.inputs)}, labels)

    return loaded.task_model(examples, patches + 1)


def untrained(config: RunConfig, classes: int) -> PreTrainedModel:
    """The architecture of the configuration with random weights; it needs no data and no checkpoint."""
    hf_config = from_architecture(config, **hf_fields(config, classes))
    return from_configuration(AutoModelForImageClassification, hf_config, config.dataset.objective)


def other_normalisation(folder: Path) -> str:
    """Says where the checkpoint was trained with pictures of another range than ours, from -1 to 1."""
    file = folder / "preprocessor_config.json"
    saved = (
        from_folder("preprocessor_config.json", folder, lambda _: read_json(file)) if file.is_file() else {}
    )
    others = [
        f"{key} {saved[key]}"
        for key, ours in (("image_mean", MEAN), ("image_std", STD))
        if saved.get(key) not in (None, ours, [ours] * 3)
    ]
    if others:
        log.warning("model.path: %s was trained with %s, pictures here have 0.5", file, " and ".join(others))
    return f", its {' and '.join(others)} not taken" if others else ""


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
