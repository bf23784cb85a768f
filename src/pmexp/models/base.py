"""What every model is to the training loop, and how its configuration is made from ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import CONFIG_MAPPING, PretrainedConfig, logging

from pmexp.config import Objective, RunConfig
from pmexp.config.kinds import KINDS
from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.examples import Examples

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True)
class TaskModel:
    """A module called as ``module(**inputs).logits``.

    logits: (samples, classes), or (samples, positions, vocabulary) of a language model.
    """

    module: nn.Module
    examples: Callable[[Split, int], Examples]  # encodes a split, texts to so many tokens
    tokens_per_sample: int  # positions the model processes, padding included
    weights: str  # where they came from


def hf_fields(config: RunConfig, classes: int) -> dict[str, Any]:
    """What every transformers configuration gets from ours: classes, attention and the dropout rates."""
    kind, model, rate = KINDS[config.model.kind], config.model, config.variant.p
    fields: dict[str, Any] = {"attn_implementation": model.attention.name}
    if config.dataset.objective is Objective.classification:
        fields["num_labels"] = classes
    for names, own in (
        (kind.hidden_dropout, model.hidden_dropout),
        (kind.attention_dropout, model.attention_dropout),
    ):
        chosen = own if rate is None else rate
        if chosen is not None:
            fields |= dict.fromkeys(names, chosen)
    return fields


def from_architecture(config: RunConfig, **fields: Any) -> PretrainedConfig:
    """The transformers configuration of `model.architecture` and `fields`, which count more.

    Raises UserError for a field that it does not have.
    """
    cls = CONFIG_MAPPING[KINDS[config.model.kind].model_type]
    known = cls().to_dict()
    for key in config.model.architecture:
        if key not in known:
            raise UserError(
                f"model.architecture.{key}: is not a field of {cls.__name__}; see its documentation"
            )
    try:
        return cls(**(config.model.architecture | fields))
    except Exception as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise UserError(f"model.architecture: {cls.__name__} refuses it: {reason}") from None
