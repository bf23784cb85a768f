"""Code of somebody's own that fails while a run trains."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.metrics.task_metrics import Evaluation
from pmexp.systems.base import SystemPart
from pmexp.variants.method import Method


class FailsToDrop(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            raise ZeroDivisionError("drop")
        return input


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise ZeroDivisionError("back")


class FailsBackward(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return _Fails.apply(input) if self.training else input  # type: ignore


def loss(model: nn.Module) -> Method:
    def fails(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        raise ZeroDivisionError("loss")

    return Method(loss=fails)


def loss_of_none(model: nn.Module) -> Method:
    return Method(loss=lambda model, inputs, labels: None)  # type: ignore


def loss_of_each(model: nn.Module) -> Method:
    return Method(loss=lambda model, inputs, labels: model(**inputs).logits.sum(1))


def loss_of_no_gradient(model: nn.Module) -> Method:
    return Method(loss=lambda model, inputs, labels: model(**inputs).logits.sum().detach())


def optimizer_of_none(model: nn.Module) -> Method:
    return Method(optimizer=lambda parameters, lr, weight_decay: None)  # type: ignore


def forward_of_none(model: nn.Module) -> Method:
    return Method(forward=lambda: None)  # type: ignore


class Stops(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise ZeroDivisionError("step")


def optimizer_of_a_closure(model: nn.Module) -> Method:
    return Method(optimizer=lambda parameters, lr, weight_decay: torch.optim.LBFGS(parameters, lr=lr))


def optimizer(model: nn.Module) -> Method:
    return Method(optimizer=Stops)


@contextmanager
def _fails() -> Iterator[None]:
    raise ZeroDivisionError("enter")
    yield


def forward(model: nn.Module) -> Method:
    return Method(forward=_fails)


def score(evaluation: Evaluation) -> float:
    raise ZeroDivisionError("score")


class Part(SystemPart):
    calls = 0

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        Part.calls += 1
        if Part.calls > 1:
            raise ZeroDivisionError("part")
        return super().forward(device)


def forward_of_no_gradient(model: nn.Module) -> Method:
    return Method(forward=torch.no_grad)


def model_of_no_gradient(model: nn.Module) -> None:
    model.register_forward_hook(
        lambda module, inputs, output: setattr(output, "logits", output.logits.detach())
    )


def freezes_all(model: nn.Module) -> None:
    model.requires_grad_(False)


class NoGradient(SystemPart):
    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.no_grad()


def to_meta(model: nn.Module) -> None:
    model.to("meta")


def ends_gradients(evaluation: Evaluation) -> float:
    torch.set_grad_enabled(False)
    return 1.0
