"""Defines what a method of one's own, a function named by `variant.apply`, may do to a training."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Method:
    """Says what a method did to a model and what it wants of the training; a function that only changes the
    model may return its report alone, or None.

    report: plain values, which the run's record keeps.
    optimizer: makes the optimizer in the place of AdamW: ``optimizer(parameters, lr=..., weight_decay=...)``.
    forward: returns a context that is entered around each forward and its loss.
    loss: makes the forward of a training step itself, as ``loss(model, inputs, labels)``, and returns its
        loss summed over the labels that are not -100, in nats. Evaluations go by the model's logits.
    state: returns what a checkpoint has to hold of the method, beside the model and `optimizer.state_dict()`.
    restore: takes that back in a run that goes on, once the model and the optimizer are as they were.
    """

    report: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Callable[..., Optimizer] | None = None
    forward: Callable[[], AbstractContextManager[object]] = nullcontext
    loss: Callable[[nn.Module, Mapping[str, Tensor], Tensor], Tensor] | None = None
    state: Callable[[], Any] | None = None
    restore: Callable[[Any], None] | None = None
