"""Shows what a training step computes, tensor by tensor in the order in which it is computed."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pmexp.measure.instruments import NoInstruments
from pmexp.measure.precision import compiled_parts
from pmexp.measure.timing import StepTimer
from pmexp.training.loop import Training

TensorKind = Literal["forward", "backward", "gradient", "update"]


@dataclass(frozen=True)
class Name:
    """Names a tensor of a step: its kind, its layer, and which of the layer's calls."""

    kind: TensorKind
    layer: str  # the module's qualified name; "" is the model
    tensor: str  # a parameter, or "output", with its key or place where there are several
    call: int = 1  # counts the layer's calls in this step

    def __str__(self) -> str:
        layer = self.layer or "the model"
        call = f" in call {self.call}" if self.call > 1 else ""
        match self.kind:
            case "forward":
                return f"forward: {self.tensor} of {layer}{call}"
            case "backward":
                return f"backward: gradient by the {self.tensor} of {layer}{call}"
            case "gradient":
                return f"gradient: {self.tensor} of {layer}"
            case _:
                return f"update: {self.tensor} of {layer}"


See = Callable[[Name, Tensor], None]


class Watch(NoInstruments):
    """Instruments that measure nothing and hand each tensor of a step to `see`, in place and not to be kept.

    They see the outputs of all modules in forward, the gradients by these in backward, then the gradients of
    the parameters before clipping, and the parameters after the optimizer's step. What a checkpoint runs
    again is not seen a second time. Modules that torch.compile has taken over are left alone: a hook would
    have it compile another graph. Their parameters are seen.
    """

    def __init__(self, training: Training) -> None:
        self._module = training.module
        self.see: See = lambda name, tensor: None
        self._in_step = False  # False in the validation between steps, too
        self._now = ""  # the phase of the step
        self._calls: Counter[str] = Counter()
        compiled = {part for whole in compiled_parts(training.module) for part in whole.modules()}
        for name, module in training.module.named_modules():
            if module not in compiled:
                module.register_forward_hook(partial(self._after_forward, name))
        training.instruments = self

    @contextmanager
    def step(self, number: int, samples: int, timer: StepTimer, settled: bool) -> Iterator[None]:
        self._calls.clear()
        self._in_step = True
        with super().step(number, samples, timer, settled):
            yield
        self._in_step = False

    def phase(self, name: str) -> AbstractContextManager[Any]:
        return self._within(name if self._in_step else "")

    @contextmanager
    def _within(self, phase: str) -> Iterator[None]:
        self._now = phase
        if phase == "optimizer":
            for name, parameter in reversed(list(self._module.named_parameters())):
                if parameter.grad is not None:
                    self.see(_of_parameter("gradient", name), parameter.grad)
        yield
        self._now = ""
        if phase == "optimizer":
            for name, parameter in self._module.named_parameters():
                self.see(_of_parameter("update", name), parameter.detach())

    def _after_forward(self, layer: str, module: nn.Module, given: Any, output: Any) -> None:
        if self._now != "forward":
            return
        self._calls[layer] += 1
        call = self._calls[layer]
        for name, tensor in _tensors(output):
            self.see(Name("forward", layer, name, call), tensor.detach())
            if tensor.requires_grad:
                tensor.register_hook(partial(self.see, Name("backward", layer, name, call)))


def _of_parameter(kind: TensorKind, name: str) -> Name:
    layer, _, tensor = name.rpartition(".")
    return Name(kind, layer, tensor)


def _tensors(output: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, f"{name}.{key}")
    elif isinstance(output, tuple | list):
        for place, value in enumerate(output):
            yield from _tensors(value, f"{name}[{place}]")
