"""Makes the model of a run by a function of somebody's own, which `model.builder` names."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pmexp.config import INPUTS_OF, Inputs, RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.captioned import Captioned
from pmexp.datasets.pictures import Pictures
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.errors import UserError
from pmexp.models import text
from pmexp.models.base import TaskModel
from pmexp.models.examples import Examples, SymbolExamples, TensorExamples
from pmexp.own_code import called
from pmexp.shown import class_of

_BUILDER, _OPTIONS = "model.builder", "model.options"


def build(config: RunConfig, dataset: Dataset) -> TaskModel:
    """Returns what ``builder(config, dataset, **options)`` returns: a TaskModel, or a module alone.

    A module alone is called as ``module(**inputs).logits`` with what the samples give: pixel_values, or
    input_ids and attention_mask, of texts by a tokenizer with `model.architecture.vocab_size` tokens that is
    trained here. Where `variant.p` is given, every nn.Dropout in it drops at that rate. Raises UserError
    where it fails or returns something else.
    """
    assert config.model.builder is not None
    made: Any = called(_BUILDER, config.model.builder, (config, dataset), config.model.options, _OPTIONS)
    if isinstance(made, nn.Module):
        made = _with_examples(made, config, dataset)
    if not isinstance(made, TaskModel):
        raise UserError(
            f"{_BUILDER}: {config.model.builder}: returns {class_of(made)}; return a torch.nn.Module, "
            "or a pmexp.models.base.TaskModel"
        )
    if not any(weight.requires_grad for weight in made.module.parameters()):
        raise UserError(
            f"{_BUILDER}: {config.model.builder}: its module has no weights that train; give it parameters"
        )
    if config.variant.p is not None:
        for part in made.module.modules():
            if isinstance(part, nn.Dropout):
                part.p = config.variant.p
    return replace(made, weights=made.weights or f"by {config.model.builder}")


def _with_examples(module: nn.Module, config: RunConfig, dataset: Dataset) -> TaskModel:
    """The module with samples as pmexp's own models get them."""
    inputs, length = dataset.train.inputs, config.dataset.max_length
    if isinstance(inputs, Pictures | Captioned):
        raise UserError(
            f"{_BUILDER}: {config.model.builder}: returns a module alone, which does not say how large its "
            f"pictures are; return a pmexp.models.base.TaskModel for dataset={config.dataset.name}"
        )
    if INPUTS_OF[config.dataset.kind] is Inputs.texts:
        return _of_texts(module, config, dataset)

    def examples(split: Split, length: int) -> Examples:
        labels = torch.from_numpy(split.labels)
        if INPUTS_OF[config.dataset.kind] is Inputs.images:
            return TensorExamples({"pixel_values": torch.from_numpy(split.inputs)}, labels)
        assert not isinstance(split.inputs, list | TaggedWords | Captioned)
        return SymbolExamples(split.inputs, labels, length)

    tokens = length if INPUTS_OF[config.dataset.kind] is Inputs.symbols else 1
    return TaskModel(module, examples, tokens, "")


def _of_texts(module: nn.Module, config: RunConfig, dataset: Dataset) -> TaskModel:
    vocabulary = config.model.architecture.get("vocab_size")
    if not isinstance(vocabulary, int):
        raise UserError(
            f"model.architecture.vocab_size: {vocabulary} is no number of tokens, which the module of "
            f"{config.model.builder} needs for texts; set it, and build the module with so many"
        )
    tokenizer = text.trained_tokenizer(config, dataset, vocabulary)
    names = ("input_ids", "attention_mask")
    return TaskModel(module, text.examples_of(config, tokenizer, names), config.dataset.max_length, "")
