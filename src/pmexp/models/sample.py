"""Finds out whether an architecture of one's own sizes can run a sample at all."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pmexp.config import ModelKind, RunConfig
from pmexp.errors import UserError, error_line


@torch.no_grad()
def refuse_unable(config: RunConfig, module: nn.Module, sample: Mapping[str, Tensor]) -> None:
    """Raises UserError for random weights of kind auto whose forward fails: transformers takes sizes that do
    not fit each other, and says so where a tensor meets another. Draws no random numbers.

    sample: keyword arguments of the forward.
    """
    if config.model.kind is not ModelKind.auto or config.model.pretrained or config.model.builder:
        return
    was_training = module.training
    try:
        module.eval()(**sample)
    except (
        RuntimeError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        KeyError,
        AssertionError,
    ) as error:
        raise UserError(
            f"model.architecture: {type(module).__name__} of these sizes cannot run a sample of "
            f"dataset={config.dataset.name} ({error_line(error)}); choose sizes that fit each other"
        ) from error
    finally:
        module.train(was_training)
