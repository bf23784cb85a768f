"""Models of transformers, with the encoding of a dataset's inputs that each one takes."""

from collections.abc import Callable

from pmexp.config import ModelConfig, ModelKind, RunConfig
from pmexp.datasets.base import Dataset
from pmexp.models import bert, vit
from pmexp.models.base import TaskModel
from pmexp.models.checkpoint import locate

BUILDERS: dict[ModelKind, Callable[[RunConfig, Dataset], TaskModel]] = {
    ModelKind.bert: bert.build,
    ModelKind.vit: vit.build,
}


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """The model, in fp32 on the CPU, drawn from torch's default generator where it has no checkpoint.

    Raises UserError when the checkpoint cannot be had or does not fit the configuration.
    """
    return BUILDERS[config.model.kind](config, dataset)


def check(config: ModelConfig) -> None:
    """Raises UserError when the checkpoint cannot be had; fetches it from the hub where that is needed."""
    if config.pretrained:
        locate(config)
