"""Tells a mean from a sum by the halves of a batch, and a multiple of the standard loss from the loss itself.

Two halves of a sum are the whole, two halves of a mean are twice the whole. A contrastive loss has fewer
others to tell a sample from in a half, and its sum over the halves is below the whole.
"""

import math
from collections.abc import Sequence

import torch

from pmexp.errors import error_line
from pmexp.models.examples import Batch
from pmexp.training.loop import Training
from pmexp.training.loss_scale import standard_losses

_LEAST_OF_A_MEAN = 1.2  # times the whole: a sum over samples that are compared with each other is below 1
_ROUNDING = 1e-4  # in parts


@torch.no_grad()
def said(training: Training) -> str:
    """Says so where the method's loss is a mean over the samples of a batch or a multiple of the standard
    loss, and where that cannot be told; empty for a sum, without a loss of the method's own, and where the
    first steps have shown its scale. A mean over samples that are compared with each other passes for a sum
    where it is below 2 nats.

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
        losses = [_losses(training, each) for each in (batch, *halves)]
    except Exception as error:  # it may take batches of one size alone
        return _untold(f"half a batch ended in {error_line(error)}")
    if multiple := _multiple(losses):
        return multiple
    whole, *parts = (value for value, _ in losses)
    if not all(math.isfinite(value) and value > 0 for value in (whole, *parts)):
        return _untold("its values are not all finite and above 0")
    if sum(parts) < _LEAST_OF_A_MEAN * whole:
        return ""
    return (
        "variant.apply: the method's loss of two halves of a batch is "
        f"{sum(parts) / whole:.2f} times that of the whole, as of a mean; return the sum over the labels "
        "that are not -100, which is divided by their number afterwards"
    )


def _losses(training: Training, batch: Batch) -> tuple[float, list[float]]:
    """The method's loss of a batch, and the standard one of each forward in it."""
    method, watch = training.method, standard_losses(training.model, batch.labels)
    with training.system.forward(), method.around_forward(), watch as standard:
        return method.loss_of(training.model, batch.inputs, batch.labels).item(), standard


def _multiple(losses: Sequence[tuple[float, list[float]]]) -> str:
    """Says so where each of the method's losses is the same multiple of the standard one, and no other
    constant than 1 fits; empty else, and where no single forward tells."""
    if not all(len(standard) == 1 and standard[0] > 0 for _, standard in losses):
        return ""
    ratio, *others = (loss / standard[0] for loss, standard in losses)
    is_constant = all(math.isclose(ratio, other, rel_tol=_ROUNDING) for other in others)
    if not is_constant or not ratio or math.isclose(ratio, 1, rel_tol=_ROUNDING):
        return ""
    uphill = ", and steps go where it grows" if ratio < 0 else ""
    return (
        f"variant.apply: the method's loss is {ratio:.4g} times the standard one of its logits{uphill}; "
        "return it without that factor, which clipping and optimizers other than Adam see in the gradient"
    )


def _untold(why: str) -> str:
    return f"variant.apply: whether the method's loss is the sum that it has to be cannot be told: {why}"
