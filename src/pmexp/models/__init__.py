"""Makes models of transformers, with the encoding of a dataset's inputs that each one takes."""

from types import ModuleType

from transformers import PreTrainedModel

from pmexp.config import ModelKind, RunConfig
from pmexp.datasets.base import Dataset
from pmexp.models import image, image_text, text
from pmexp.models.base import TaskModel


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Returns the model, in fp32 on the CPU, drawn from torch's default generator where it has no checkpoint.

    Raises UserError when the checkpoint cannot be had or does not fit the configuration.
    """
    return _maker(config).build(config, dataset)


def untrained(config: RunConfig, classes: int) -> PreTrainedModel:
    """The architecture alone, with random weights: for studies of memory and speed, on any device or none."""
    return _maker(config).untrained(config, classes)


def _maker(config: RunConfig) -> ModuleType:
    return {ModelKind.vit: image, ModelKind.vilt: image_text}.get(config.model.kind, text)
