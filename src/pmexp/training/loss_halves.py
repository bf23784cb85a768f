"""Tells a mean from a sum by the halves of a batch, for losses that are no multiple of the standard one.

Two halves of a sum are the whole, two halves of a mean are twice the whole. A contrastive loss has fewer
others to tell a sample from in a half, and its sum over the halves is below the whole.
"""

import math

import torch

from pmexp.errors import error_line
from pmexp.models.examples import Batch
from pmexp.training.loop import Training

_LEAST_OF_A_MEAN = 1.2  # times the whole: a sum over samples that are compared with each other is below 1


@torch.no_grad()
def said(training: Training) -> str:
    """Says so where the method's loss is a mean over the samples of a batch, and where that cannot be told;
    empty for a sum, without a loss of the method's own, and where the first steps have shown its scale.
    A mean over samples that are compared with each other passes for a sum where it is below 2 nats.

    It calls the loss three times, in eval mode, and comes after all that a run records: a loss may keep
    what it has seen. Every rank has to call it.
    """
    if training.method.loss is None or training.progress.loss_scale:
        return ""
    batch = training.first_whole_batch().to(training.system.device)
    half = len(batch.labels) // 2
    halves = batch.each(lambda tensor: tensor[:half]), batch.each(lambda tensor: tensor[half:])
    if not half:
        return _untold("it is called with one sample")
    training.engine.set_mode(training=False)
    try:
        whole, *parts = (_loss(training, each) for each in (batch, *halves))
    except Exception as error:  # it may take batches of one size alone
        return _untold(f"half a batch ended in {error_line(error)}")
    if not all(math.isfinite(value) and value > 0 for value in (whole, *parts)):
        return _untold("its values are not all finite and above 0")
    if sum(parts) < _LEAST_OF_A_MEAN * whole:
        return ""
    return (
        "variant.apply: the method's loss of two halves of a batch is "
        f"{sum(parts) / whole:.2f} times that of the whole, as of a mean; return the sum over the labels "
        "that are not -100, which is divided by their number afterwards"
    )


def _loss(training: Training, batch: Batch) -> float:
    method = training.method
    with training.system.forward(), method.around_forward():
        return method.loss_of(training.model, batch.inputs, batch.labels).item()


def _untold(why: str) -> str:
    return f"variant.apply: whether the method's loss is the sum that it has to be cannot be told: {why}"
