"""Makes models of transformers, with the encoding of a dataset's inputs that each one takes."""

import sys
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from pmexp.config import INPUTS_OF, Inputs, RunConfig
from pmexp.datasets.base import Dataset
from pmexp.errors import UserError
from pmexp.models import image, image_text, own, text
from pmexp.models.adapters import adapt
from pmexp.models.base import TaskModel

_MAKERS: dict[Inputs, Any] = {Inputs.images: image, Inputs.image_texts: image_text}  # the others: text


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Returns the model on the CPU, drawn from torch's default generator where it has no checkpoint.

    Its weights are in fp32, but for those that `model.lora` freezes and keeps in bf16. Raises UserError when
    the checkpoint cannot be had or does not fit the configuration.
    """
    model: TaskModel = (own if config.model.builder else _maker(config)).build(config, dataset)
    return replace(model, adapters=adapt(model.module, config))


def untrained(config: RunConfig, classes: int) -> PreTrainedModel:
    """The architecture alone, with random weights and the adapters of `model.lora`: for studies of memory and
    speed, on any device or none. Raises UserError for a model that a builder of one's own makes of data."""
    module: PreTrainedModel = _maker(config).untrained(config, classes)
    adapt(module, config)
    return module


def _maker(config: RunConfig) -> Any:
    """The module that makes models of the dataset's inputs. Raises UserError where Python leaves out the
    docstrings that transformers makes its models by."""
    if sys.flags.optimize > 1:
        raise UserError(
            "python -OO (PYTHONOPTIMIZE=2): leaves out docstrings, by which transformers makes its models; "
            "start without it, or with -O"
        )
    return _MAKERS.get(INPUTS_OF[config.dataset.kind], text)
