"""Defines what every model is to the training loop, and makes its configuration from ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, logging

from pmexp.config import ModelConfig, ModelKind, Objective, RunConfig
from pmexp.config.kinds import architecture_of
from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.architectures import check_serves, configuration_class, own_fields, rates_in, set_rates
from pmexp.models.examples import Examples
from pmexp.models.generation import Generation

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True)
class TaskModel:
    """A module that is called as ``module(**inputs).logits``.

    logits: (samples, classes), (samples, 1) of a regression, (samples, positions, classes) of words, or
    (samples, positions, vocabulary) of a language model.
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
    kind, model, rate = architecture_of(config.model), config.model, config.variant.p
    fields: dict[str, Any] = {"attn_implementation": model.attention.name}
    if config.dataset.objective in (Objective.classification, Objective.token_classification):
        fields["num_labels"] = classes
    if config.dataset.objective is Objective.regression:
        fields["num_labels"] = 1
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


def settled(config: RunConfig, hf_config: PretrainedConfig) -> PretrainedConfig:
    """Returns `hf_config` with those of our fields whose names are its class's own: rates of dropout, and
    that no keys and values are kept.

    Raises UserError for a rate of a place that the architecture has none of.
    """
    if config.model.kind is ModelKind.auto:
        model, rate = config.model, config.variant.p
        hidden, attention = (
            own if rate is None else rate for own in (model.hidden_dropout, model.attention_dropout)
        )
        set_rates(hf_config, hidden, attention, strict=rate is None)
        if hasattr(hf_config, "use_cache"):
            hf_config.use_cache = False
    return hf_config


def has_encoder_and_decoder(model: ModelConfig) -> bool:
    """Whether the architecture, of kind auto, reads by one part and writes by another."""
    if model.kind is not ModelKind.auto or model.builder:
        return False
    return bool(configuration_class(architecture_of(model).model_type)().is_encoder_decoder)


def rates_of_functions(model: ModelConfig, hf_config: PretrainedConfig | None) -> list[float]:
    """Returns the rates that functions drop at: attention's, or those of all where it has none of its own."""
    kind = architecture_of(model)
    if hf_config is None:  # a model of one's own
        return []
    if model.kind is ModelKind.auto:
        hidden, attention = rates_in(hf_config)
        return attention or hidden
    return [getattr(hf_config, name) for name in kind.attention_dropout or kind.hidden_dropout]


def from_architecture(config: RunConfig, **fields: Any) -> PretrainedConfig:
    """The transformers configuration of `model.architecture`, overridden by `fields`.

    Raises UserError for a field that the architecture does not have, and for a builder of one's own.
    """
    if config.model.builder:
        raise UserError(
            f"model.builder: {config.model.builder} makes its model with the data, which is not read here; "
            "measure a run of it"
        )
    cls = configuration_class(architecture_of(config.model).model_type)
    check_architecture(config, cls)
    stated = {key: value for key, value in config.model.architecture.items() if key != "model_type"}
    try:
        hf_config = cls(**(stated | fields))
    except Exception as error:
        raise _refused(cls.__name__, error) from None
    return settled(config, hf_config)


def from_configuration(auto: Any, hf_config: PretrainedConfig, objective: Objective) -> PreTrainedModel:
    """The model of `hf_config` with random weights, in fp32 whatever torch's default dtype is.

    auto: one of transformers' AutoModelFor... classes. Raises UserError for values that do not go together,
    or an objective or an attention that the architecture does not have.
    """
    check_serves(auto, hf_config, objective)
    try:
        module: PreTrainedModel = auto.from_config(hf_config, dtype=torch.float32)
    except (ValueError, KeyError, ZeroDivisionError) as error:
        raise _refused(type(hf_config).__name__, error) from None
    return module


def _refused(name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
    return UserError(f"model.architecture: {name} refuses it: {reason}")


def check_architecture(config: RunConfig, cls: type[PretrainedConfig]) -> None:
    """Raises UserError for a key of `model.architecture` that is no field of the architecture."""
    known = own_fields(cls)
    if config.model.kind is ModelKind.auto:
        known |= {"model_type"}
    for key in config.model.architecture:
        if key not in known:
            raise UserError(
                f"model.architecture.{key}: is not a field of {cls.__name__} that a run can choose; "
                "see its documentation"
            )
    if config.model.architecture.get("output_router_logits"):
        raise UserError(
            "model.architecture.output_router_logits: true would add the losses of routers, and a run's loss "
            "is its objective's alone; leave it out, or add them by a loss of your own (variant.apply)"
        )


def with_stated_rates(config: RunConfig, saved: dict[str, Any]) -> dict[str, Any]:
    """The fields of a checkpoint with the dropout rates that `model.architecture` states.

    Where it states one of attention's rates, no rate of attention is the checkpoint's; likewise the others.
    """
    kind, stated = architecture_of(config.model), config.model.architecture
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
    unsaid = set() if stated.get("model_type") else {"model_type"}  # model=auto takes the checkpoint's
    sizes = set(stated) - architecture_of(config.model).rates - unsaid
    others = sorted(key for key in sizes if getattr(actual, key) != stated[key])
    lines = [f"{key} {getattr(actual, key)} (model={config.model.name}: {stated[key]})" for key in others]
    return ", ".join(lines)
