"""Runs a model on a first sample, before a training does, and says in one line what is wrong with it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.config import ModelKind, Objective, RunConfig
from pmexp.errors import UserError, error_line
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.models.examples import Batch
from pmexp.own_code import failed
from pmexp.shown import class_of, counted

_BUILDER = "model.builder"
_SHAPES = {  # the others: (samples, positions, vocabulary)
    Objective.classification: "(samples, classes)",
    Objective.regression: "(samples, 1)",
    Objective.token_classification: "(samples, positions, classes)",
}


@torch.no_grad()
def output_of(
    module: nn.Module, inputs: Mapping[str, Tensor], refused: Callable[[Exception], UserError]
) -> Any:
    """Returns what a forward in evaluation returns, and leaves the CPU's random numbers as they are.

    inputs: keyword arguments of the forward. refused: makes the error for a person of what it raises; running
    out of memory is raised as it is.
    """
    was_training = module.training
    try:
        with torch.random.fork_rng(devices=[]):
            return module.eval()(**inputs)
    except Exception as error:  # transformers and somebody's own code raise anything
        if is_out_of_memory(error) or isinstance(error, UserError):
            raise
        raise refused(error) from error
    finally:
        module.train(was_training)


def refuse_unable(config: RunConfig, module: nn.Module, batch: Batch, classes: int) -> None:
    """Raises UserError for a model of kind auto whose forward fails: transformers takes sizes that do not fit
    each other, and says so where a tensor meets another; other models take more than a dataset has. Likewise
    for a model of one's own, and where that does not return the logits that its objective needs. Leaves
    random numbers as they are.

    batch: of samples, on the CPU. classes: how many the dataset has.
    """
    if config.model.builder:
        _refuse_other_logits(config, module, batch, classes)
    elif config.model.kind is ModelKind.auto:
        output_of(module, batch.inputs, lambda error: unable(config, module, error))


def unable(config: RunConfig, module: nn.Module, error: Exception) -> UserError:
    """Says of an architecture that it cannot run at the sizes that a run has chosen."""
    if config.model.pretrained:
        return UserError(
            f"model.path: {type(module).__name__} of this checkpoint cannot run a sample of "
            f"dataset={config.dataset.name} ({error_line(error)}); choose another architecture or dataset"
        )
    return UserError(
        f"model.architecture: {type(module).__name__} of these sizes cannot run a sample of "
        f"dataset={config.dataset.name} ({error_line(error)}); choose sizes that fit each other"
    )


def _refuse_other_logits(config: RunConfig, module: nn.Module, batch: Batch, classes: int) -> None:
    path, objective, labels = str(config.model.builder), config.dataset.objective, batch.labels
    output = output_of(module, batch.inputs, lambda error: failed(_BUILDER, path, error))
    wanted = f"logits of shape {_SHAPES.get(objective, '(samples, positions, vocabulary)')}"
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{_BUILDER}: {path}: its module returns {class_of(output)} without logits; return an "
            f"object that has {wanted}, such as types.SimpleNamespace(logits=...)"
        )
    shape = tuple(logits.shape)
    answers = (
        1 if objective is Objective.regression else classes or max(int(labels.max()) + 1, *shape[-1:], 0)
    )
    if shape != (expected := (*labels.shape, answers)):
        raise UserError(
            f"{_BUILDER}: {path}: its module returns logits of shape {shape} for "
            f"{counted(len(labels), 'sample')} of dataset={config.dataset.name}; return {wanted}, here "
            f"{expected}"
        )
    if objective is not Objective.regression and answers > 1 and _are_probabilities(logits):
        raise UserError(
            f"{_BUILDER}: {path}: its module returns probabilities, which the loss would take for logits; "
            "return what softmax is given"
        )


def _are_probabilities(logits: Tensor) -> bool:
    """Whether all numbers of the first rows are positive and sum to 1, as no logits of weights do."""
    rows = logits.flatten(0, -2)[:64].double()
    rounding = 1e-2 if logits.element_size() < 4 else 1e-5
    return bool((rows > 0).all()) and bool(((rows.sum(-1) - 1).abs() <= rounding).all())
