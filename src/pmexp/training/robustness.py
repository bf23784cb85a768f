"""Tests a trained model where it was not trained: on attacked images, and on data of another distribution."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmexp.config import RunConfig
from pmexp.datasets.base import Dataset
from pmexp.errors import UserError
from pmexp.models import positions
from pmexp.models.base import TaskModel
from pmexp.models.colours import BY_DEFAULT
from pmexp.models.examples import Batch, Examples
from pmexp.training.loop import Metrics, Training


def check_attack(config: RunConfig, dataset: Dataset) -> None:
    """Raises UserError where an attack would cut pixels to a range that they are not in, as those of a loader
    of one's own may be."""
    inputs = dataset.val.inputs
    if config.robustness.fgsm is None or not isinstance(inputs, np.ndarray) or inputs.dtype == np.uint8:
        return
    black, white = (float(limit) for limit in BY_DEFAULT.limits(torch.device("cpu")))
    if inputs.min() < black or inputs.max() > white:
        raise UserError(
            f"robustness.fgsm: pixels in float32 are moved from {black:g} to {white:g}, and those of the val "
            f"split are from {inputs.min():g} to {inputs.max():g}; give such, or 8-bit pixels in uint8"
        )


def measure(
    config: RunConfig, training: Training, model: TaskModel, dataset: Dataset, ood: Dataset | None
) -> Metrics:
    """Loss and metrics under the weights that `training` has: `fgsm/...` and `ood/...`, as far as asked for.

    The last thing that a run does: a model too short for the other dataset has its positions repeated.
    """
    metrics: Metrics = {}
    if config.robustness.fgsm is not None:
        val = model.examples(dataset.val, config.dataset.max_length)
        attacked = FgsmExamples(val, _gradient_of_inputs(training), config.robustness.fgsm)
        metrics |= {f"fgsm/{name}": value for name, value in training.evaluator.evaluate(attacked).items()}
    if config.robustness.ood is not None and ood is not None and ood.test is not None:
        length = config.robustness.ood.max_length
        if not config.takes_images and length > positions.limit(model.module):
            positions.extend(model.module, replace(config.model, positions=length))
        tested = training.evaluator.evaluate(model.examples(ood.test, length))
        metrics |= {f"ood/{name}": value for name, value in tested.items()}
    return metrics


@dataclass(frozen=True)
class FgsmExamples:
    """`examples` with every pixel moved by `epsilon` of its range so that the loss grows.

    x + epsilon sign(dL/dx), cut to the pixels' range: the fast gradient sign method (Goodfellow, Shlens and
    Szegedy, ICLR 2015, section 4). `gradient`: of a batch's loss with respect to its pixels.
    """

    examples: Examples
    gradient: Callable[[Batch], Tensor]
    epsilon: float

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        batch = self.examples.batch(rows, epoch)
        gradient = self.gradient(batch)
        pixels = batch.to(gradient.device).inputs["pixel_values"]
        black, white = batch.colours.limits(pixels.device)
        moved = (pixels + self.epsilon * (white - black) * gradient.sign()).clamp(black, white)
        return Batch({"pixel_values": moved}, batch.labels)


def _gradient_of_inputs(training: Training) -> Callable[[Batch], Tensor]:
    """Returns a function that gives the gradient of a batch's summed loss. The model is called without its
    engine's wrapper, whose reducer would wait for gradients of the weights."""

    def gradient(batch: Batch) -> Tensor:
        on_device = batch.to(training.system.device)
        pixels = on_device.inputs["pixel_values"].requires_grad_()
        with torch.enable_grad(), training.system.forward():
            logits = training.module(pixel_values=pixels).logits.float()
            loss = F.cross_entropy(logits, on_device.labels, reduction="sum")
        return torch.autograd.grad(loss, pixels)[0]

    return gradient
