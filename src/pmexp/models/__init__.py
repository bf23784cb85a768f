"""Makes models of transformers, with the encoding of a dataset's inputs that each one takes."""

from transformers import PreTrainedModel

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset
from pmexp.models import image, text
from pmexp.models.base import TaskModel


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Returns the model, in fp32 on the CPU, drawn from torch's default generator where it has no checkpoint.

    Raises UserError when the checkpoint cannot be had or does not fit the configuration.
    """
    build = image.build if config.model.takes_images else text.build
    return build(config, dataset)


def untrained(config: RunConfig, classes: int) -> PreTrainedModel:
    """The architecture alone, with random weights: for studies of memory and speed, on any device or none."""
    make = image.untrained if config.model.takes_images else text.untrained
    return make(config, classes)
