"""Defines what every model is to the training loop, and makes its configuration from ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel, logging

from pmexp.config import ModelKind, Objective, RunConfig
from pmexp.config.kinds import KINDS
from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.examples import Examples
from pmexp.models.generation import Generation

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True)
class TaskModel:
    """A module that is called as ``module(**inputs).logits``.

    logits: (samples, classes), or (samples, positions, vocabulary) of a language model.
    """

    module: PreTrainedModel
    examples: Callable[[Split, int], Examples]  # encodes a split, texts to so many tokens
    tokens_per_sample: int  # positions the model processes, padding included
    weights: str  # says where they came from
    architecture: str = ""  # says what a checkpoint has otherwise than `model.architecture`
    generation: Generation | None = None  # writes the texts of an evaluation; None: of another objective
    digest: str = ""  # digest of a checkpoint's files, or its commit on the hub
    adapters: str = ""  # says which adapters train in the place of the weights


def hf_fields(config: RunConfig, classes: int) -> dict[str, Any]:
    """The fields that every transformers configuration gets from ours: classes, attention, dropout rates."""
    kind, model, rate = KINDS[config.model.kind], config.model, config.variant.p
    fields: dict[str, Any] = {"attn_implementation": model.attention.name}
    if config.dataset.objective is Objective.classification:
        fields["num_labels"] = classes
    if config.dataset.objective in (Objective.causal_lm, Objective.seq2seq):
        fields["use_cache"] = (
            False  # keys and values of a prompt, copied in each layer: of use in generation alone
        )
    for names, own in (
        (kind.hidden_dropout, model.hidden_dropout),
        (kind.attention_dropout, model.attention_dropout),
    ):
        chosen = own if rate is None else rate
        if chosen is not None:
            fields |= dict.fromkeys(names, chosen)
    return fields


def configuration_class(kind: ModelKind) -> type[PretrainedConfig]:
    """transformers' class for configurations of this architecture."""
    cls: type[PretrainedConfig] = CONFIG_MAPPING[KINDS[kind].model_type]
    return cls


def own_fields(cls: type[PretrainedConfig]) -> set[str]:
    """Returns the fields of `cls` that describe an architecture.

    The fields that all models of transformers have, such as dtype and outputs, are a run's own choice.
    """
    return (set(cls().to_dict()) | set(cls.attribute_map)) - set(PretrainedConfig().to_dict())


def from_architecture(config: RunConfig, **fields: Any) -> PretrainedConfig:
    """The transformers configuration of `model.architecture`, overridden by `fields`.

    Raises UserError for a field that the architecture does not have.
    """
    cls = configuration_class(config.model.kind)
    check_architecture(config)
    try:
        return cls(**(config.model.architecture | fields))
    except Exception as error:
        raise _refused(cls.__name__, error) from None


def from_configuration(auto: Any, hf_config: PretrainedConfig) -> PreTrainedModel:
    """The model of `hf_config` with random weights, in fp32 whatever torch's default dtype is.

    auto: one of transformers' AutoModelFor... classes. Raises UserError for values that do not go together,
    or an attention that the architecture does not have.
    """
    try:
        module: PreTrainedModel = auto.from_config(hf_config, dtype=torch.float32)
    except (ValueError, KeyError, ZeroDivisionError) as error:
        raise _refused(type(hf_config).__name__, error) from None
    return module


def _refused(name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
    return UserError(f"model.architecture: {name} refuses it: {reason}")


def check_architecture(config: RunConfig) -> None:
    """Raises UserError for a key of `model.architecture` that is no field of the architecture."""
    cls = configuration_class(config.model.kind)
    known = own_fields(cls)
    for key in config.model.architecture:
        if key not in known:
            raise UserError(
                f"model.architecture.{key}: is not a field of {cls.__name__} that a run can choose; "
                "see its documentation"
            )


def with_stated_rates(config: RunConfig, saved: dict[str, Any]) -> dict[str, Any]:
    """The fields of a checkpoint with the dropout rates that `model.architecture` states.

    Where it states one of attention's rates, no rate of attention is the checkpoint's; likewise the others.
    """
    kind, stated = KINDS[config.model.kind], config.model.architecture
    for names in map(set, (kind.hidden_dropout, kind.attention_dropout)):
        if names & set(stated):
            others = {key: value for key, value in saved.items() if key not in names}
            saved = others | {name: stated[name] for name in names & set(stated)}
    return saved


def otherwise_than_stated(config: RunConfig, actual: PretrainedConfig) -> str:
    """The fields that a model has otherwise than `model.architecture` states them; empty where all agree.

    Sizes are a checkpoint's own; the dropout rates of a variant are meant to differ.
    """
    stated = config.model.architecture
    sizes = set(stated) - KINDS[config.model.kind].rates
    others = sorted(key for key in sizes if getattr(actual, key) != stated[key])
    lines = [f"{key} {getattr(actual, key)} (model={config.model.name}: {stated[key]})" for key in others]
    return ", ".join(lines)
