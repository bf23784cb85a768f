"""What every model is to the training loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig, logging

from pmexp.config import RunConfig
from pmexp.datasets.base import Split
from pmexp.errors import UserError

logging.set_verbosity_error()
logging.disable_progress_bar()

DROPOUT_RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@dataclass(frozen=True)
class TaskModel:
    """A module called as ``module(**inputs).logits`` -> (samples, classes)."""

    module: nn.Module
    encode: Callable[[Split], dict[str, Tensor]]  # inputs, samples first
    tokens_per_sample: int  # positions the model processes, padding included
    weights: str  # where they came from


def hf_fields(config: RunConfig, classes: Sequence[str]) -> dict[str, Any]:
    """What every transformers config gets from ours: classes, attention and the dropout rate."""
    fields: dict[str, Any] = {
        "num_labels": len(classes),
        "attn_implementation": config.model.attention.name,
    }
    if config.variant.p is not None:
        fields |= dict.fromkeys(DROPOUT_RATES, config.variant.p)
    return fields


def from_architecture(cls: type[PretrainedConfig], config: RunConfig, classes: list[str]) -> PretrainedConfig:
    """The transformers config of `model.architecture`. Raises UserError for a field that it does not have."""
    known = cls().to_dict()
    for key in config.model.architecture:
        if key not in known:
            raise UserError(
                f"model.architecture.{key}: is not a field of {cls.__name__}; see its documentation"
            )
    try:
        return cls(**(config.model.architecture | hf_fields(config, classes)))
    except Exception as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise UserError(f"model.architecture: {cls.__name__} refuses it: {reason}") from None
