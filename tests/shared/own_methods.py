"""Code of somebody's own, which runs name by its import path."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pmexp.config import DatasetConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.metrics.task_metrics import Evaluation
from pmexp.systems.base import SystemPart
from pmexp.variants.method import Method


class KeepsBytes(nn.Dropout):
    """nn.Dropout with a mask of `width` bytes an element."""

    def __init__(self, p: float = 0.5, inplace: bool = False, width: int = 1) -> None:
        super().__init__(p, inplace)
        self.dtype = {1: torch.bool, 2: torch.int16, 4: torch.int32}[width]

    def forward(self, input: Tensor) -> Tensor:
        return self.drop(input, self.p, self.training)

    def drop(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        return _Masked.apply(input, (torch.rand_like(input) >= p).to(self.dtype), 1 / (1 - p))  # type: ignore


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return x * keep * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return gradients[0] * keep * ctx.scale, None, None


def halve_saved(model: nn.Module, above: int = 0) -> Method:
    """Saves activations of more than `above` elements in bfloat16."""

    def pack(tensor: Tensor) -> Any:
        is_large = tensor.dtype is torch.float32 and tensor.numel() > above
        return (tensor.to(torch.bfloat16), tensor.dtype) if is_large else (tensor, tensor.dtype)

    def unpack(saved: Any) -> Tensor:
        kept: Tensor = saved[0].to(saved[1])
        return kept

    return Method(report={"above": above}, forward=lambda: saved_tensors_hooks(pack, unpack))


def signed_descent(model: nn.Module) -> Method:
    """Trains by the sign of the gradient, which keeps no state."""
    return Method(optimizer=Signed)


def matrices_alone(model: nn.Module) -> Method:
    """Trains parameters of two dimensions and leaves out the others."""

    def optimizer(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([each for each in parameters if each.dim() == 2], lr=lr)

    return Method(optimizer=optimizer)


class Signed(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())


def own_loss(model: nn.Module) -> Method:
    """Computes the loss of a training step as the loop does, by a function of its own."""

    def loss(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        logits = model(**inputs).logits.float()
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    return Method(loss=loss)


def freeze_nothing(model: nn.Module) -> dict[str, int]:
    return {"parameters": sum(each.numel() for each in model.parameters())}


def drops_nothing(model: nn.Module, from_step: int = 0) -> None:
    """Sets the rate of each dropout to 0, once `from_step` forwards in training have begun."""
    dropouts = [each for each in model.modules() if isinstance(each, nn.Dropout)]
    forwards = 0

    def count(module: nn.Module, inputs: object) -> None:
        nonlocal forwards
        forwards += module.training
        for each in dropouts if forwards > from_step else ():
            each.p = 0.0

    model.register_forward_pre_hook(count)


def rests(model: nn.Module) -> None:
    """Keeps each dropout in eval mode."""
    for each in model.modules():
        if isinstance(each, nn.Dropout):
            each.eval().train = lambda mode=True, each=each: each  # type: ignore[method-assign,misc]


def takes_dropout_out(model: nn.Module) -> None:
    for each in list(model.modules()):
        for name, child in each.named_children():
            if isinstance(child, nn.Dropout):
                setattr(each, name, nn.Identity())


def fails(model: nn.Module) -> None:
    raise ZeroDivisionError("nothing to divide")


def returns_text(model: nn.Module) -> Any:
    return {"model": model}


def load_stripes(config: DatasetConfig, samples: int = 60) -> Dataset:
    """Pictures of one of two stripes."""
    labels = np.arange(samples) % 2
    pictures = np.random.default_rng(0).random((samples, 1, 8, 8), np.float32)
    pictures[labels == 1, :, 3] += 2
    split = Split(pictures, labels)
    return Dataset(split, split.take(np.arange(20)), split.take(np.arange(20)), ["none", "stripe"])


def load_flat(config: DatasetConfig) -> Dataset:
    """Pictures whose rows lie one behind the other."""
    stripes = load_stripes(config).train
    split = Split(stripes.inputs.reshape(60, 64), stripes.labels)  # type: ignore
    return Dataset(split, split, split, ["none", "stripe"])


def load_texts(config: DatasetConfig, form: str = "plain") -> Dataset:
    """Texts that are no tuples, or tuples of something else than texts."""
    texts: Any = ["good", "bad"] * 10 if form == "plain" else [(np.arange(3),)] * 20
    split = Split(texts, np.arange(20) % 2)
    return Dataset(split, split, split, ["bad", "good"])


def load_in_lists(config: DatasetConfig, labels: bool = False) -> Dataset:
    stripes = load_stripes(config).train
    as_list: Any = [*(stripes.labels if labels else stripes.inputs)]
    split = Split(stripes.inputs, as_list) if labels else Split(as_list, stripes.labels)
    return Dataset(split, split, split, ["none", "stripe"])


def load_nothing(config: DatasetConfig) -> list[int]:
    return []


class Counting(SystemPart):
    """Counts the forwards of a run."""

    def __init__(self) -> None:
        self.forwards = 0

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        self.forwards += 1
        return nullcontext()

    def record(self, module: nn.Module) -> dict[str, str]:
        return {"counted": f"{self.forwards} forwards", "device": "abacus"}


class AlwaysDrops(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.dropout(input, self.p, True)


class AtItsOwnRate(nn.Dropout):
    def __init__(self, p: float, inplace: bool) -> None:
        super().__init__(0.75, inplace)


class Widens(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return torch.stack([input, input]) if self.training else input


class OtherDrop(nn.Dropout):
    def drop(self, input: Tensor) -> Tensor:
        return input


def returns_model(model: nn.Module) -> nn.Module:
    return nn.Sequential(model)


def _stripes(labels: NDArray[Any], classes: int = 2) -> Dataset:
    split = Split(np.zeros((60, 1, 8, 8), np.float32), labels)
    return Dataset(split, split, split, [str(number) for number in range(classes)])


def load_too_few_labels(config: DatasetConfig) -> Dataset:
    return _stripes(np.zeros(50, np.int64))


def load_too_few_classes(config: DatasetConfig) -> Dataset:
    return _stripes(np.arange(60) % 3)


def load_short_labels(config: DatasetConfig) -> Dataset:
    return _stripes((np.arange(60) % 2).astype(np.int32))


def spoils(evaluation: Evaluation) -> float:
    evaluation.scores[:] = 0
    return 1.0


class NoContext(SystemPart):
    def forward(self, device: torch.device) -> Any:
        return None


class FailsToPrepare(SystemPart):
    def prepare(self, module: nn.Module) -> None:
        raise RuntimeError("boom")


EVALUATIONS: list[int] = []


def finite_at_last(evaluation: Evaluation) -> float:
    """Returns NaN twice, then the number of evaluations, less and less."""
    EVALUATIONS.append(1)
    return float("nan") if len(EVALUATIONS) < 3 else 6.0 - len(EVALUATIONS)


def never(evaluation: Evaluation) -> float:
    return float("inf")


def diverging(model: nn.Module) -> Method:
    """Has a loss that is no number from the first step on."""

    def loss(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        return model(**inputs).logits.float().sum() * float("nan")

    return Method(loss=loss)


def careless(model: nn.Module) -> Method:
    """Has an optimizer that steps another at a rate of its own, and shrinks weights in evaluations."""

    class Wraps(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            inner.step()

    inner = torch.optim.SGD(model.parameters(), lr=0.1)

    def shrink(module: nn.Module, inputs: object) -> None:
        if not module.training:
            next(module.parameters()).data.mul_(0.9)

    model.register_forward_pre_hook(shrink)
    return Method(optimizer=Wraps)


def halves_each_product(model: nn.Module) -> None:
    """Changes every nn.Linear of the process, not those of the model alone."""
    forward = nn.Linear.forward
    nn.Linear.forward = lambda self, input: forward(self, input) * 0.5  # type: ignore[method-assign]
