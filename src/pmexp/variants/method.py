"""Defines what a method of one's own, a function named by `variant.apply`, may do to a training."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pmexp.errors import UserError
from pmexp.shown import class_of


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

    def made_optimizer(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
        """Returns what `optimizer` makes, or AdamW. Raises UserError where that is no optimizer, or where
        nothing is left to train."""
        parameters = list(parameters)
        if not parameters:
            raise UserError(
                "variant.apply: no parameter needs a gradient once the method has changed the model; leave "
                "some to train"
            )
        made = (self.optimizer or AdamW)(parameters, lr=lr, weight_decay=weight_decay)
        if not isinstance(made, Optimizer):
            raise _refused("optimizer", class_of(made), "a torch.optim.Optimizer")
        try:
            inspect.signature(made.step).bind()
        except TypeError:
            wanted = "one whose step() takes no closure, since a forward is run once a step"
            raise _refused(
                "optimizer", f"{class_of(made)}, whose step cannot be called alone", wanted
            ) from None
        return made

    def around_forward(self) -> AbstractContextManager[object]:
        """Returns what `forward` gives. Raises UserError where that is no context."""
        around = self.forward()
        if not isinstance(around, AbstractContextManager):
            raise _refused("forward", class_of(around), "a context, such as saved_tensors_hooks(...)")
        return around

    def loss_of(self, model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Returns the loss by `loss`, which the method has. Raises UserError where nothing can be trained by
        it: under a context in which nothing needs a gradient, that is left to the caller."""
        assert self.loss is not None
        loss = self.loss(model, inputs, labels)
        if not isinstance(loss, Tensor):
            said = class_of(loss)
        elif loss.numel() != 1:
            said = f"a tensor of shape {tuple(loss.shape)}"
        elif not loss.requires_grad and torch.is_grad_enabled():
            said = "a tensor that needs no gradient"
        else:
            return loss
        raise _refused("loss", said, "one number that needs a gradient, the loss summed over the labels")


def _refused(function: str, returned: str, wanted: str) -> UserError:
    return UserError(f"variant.apply: the method's {function} returns {returned}; return {wanted}")
