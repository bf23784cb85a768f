"""Compares a method's own loss with the standard loss of the same logits, of which it may be the mean.

The loop divides the summed loss by the targets of the whole batch. A loss that is a mean already trains with
a small part of the gradient, and no error tells. Such a loss is a count times or through the standard one, to
the rounding; no weighting of samples or classes is so in several batches at several weights.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pmexp.models.examples import Batch
from pmexp.models.objectives import summed_loss

# So many steps are compared: a focal loss of two logits that are still 0 is a fourth of the standard loss.
STEPS = 3
_CHUNKS = 8  # in which the standard loss is computed, so that no step needs more memory for it


@contextmanager
def standard_losses(model: nn.Module, labels: Tensor) -> Iterator[list[float]]:
    """Yields a list that gets the summed standard loss of each forward of `model` inside, where its output
    has logits for `labels`."""
    losses: list[float] = []

    def add(module: nn.Module, inputs: object, output: object) -> None:
        logits = getattr(output, "logits", None)
        if isinstance(logits, Tensor) and are_of(logits, labels):
            losses.append(_summed(logits.detach(), labels))

    hook = model.register_forward_hook(add)
    try:
        yield losses
    finally:
        hook.remove()


def scales(loss: Tensor, standard: list[float], batch: Batch) -> list[str] | None:
    """Returns in words by which counts `loss` is multiplied or divided, if it is; None where nothing tells,
    as without a standard loss of one forward."""
    if len(standard) != 1:
        return None
    value = loss.item()
    if not all(math.isfinite(each) and each > 0 for each in (value, *standard)):
        return None
    ratio, rounding = value / standard[0], max(1e-5, 2 * torch.finfo(loss.dtype).eps)
    counts = {
        "the number of labels that count": batch.targets,
        "the number of labels": batch.labels.numel(),
        "the number of samples": len(batch.labels),
    }
    if max(counts.values()) == 1:
        return None
    factors = {f"divided by {words}": 1 / count for words, count in counts.items() if count > 1}
    factors |= {f"multiplied by {words}": count for words, count in counts.items() if count > 1}
    return [words for words, factor in factors.items() if math.isclose(ratio, factor, rel_tol=rounding)]


def said(scale: list[str] | None) -> str:
    """Says what is wrong with a method's loss, if `scale`, the scales of all batches compared, has any."""
    if not scale:
        return ""
    return (
        f"variant.apply: the method's loss is that of the logits {scale[0]}, and its gradient too; return "
        "the loss summed over the labels that are not -100, which is divided by their number afterwards"
    )


def are_of(logits: Tensor, labels: Tensor) -> bool:
    """Whether there are logits for each label."""
    return (
        logits.numel() == labels.numel() if labels.is_floating_point() else logits.shape[:-1] == labels.shape
    )


@torch.no_grad()
def _summed(logits: Tensor, labels: Tensor) -> float:
    parts = zip(logits.chunk(_CHUNKS), labels.chunk(_CHUNKS), strict=True)
    return math.fsum(summed_loss(part.float(), of_part).item() for part, of_part in parts)
