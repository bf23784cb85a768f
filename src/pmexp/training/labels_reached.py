"""Sees which labels of the first step the gradient of a method's own loss reaches, by the model's logits.

A loss that is computed on a part of its batch trains on that part alone, and neither its value nor its scale
shows it. The gradient of the logits does: it is zero for each label that has no part in the loss. That of
cross-entropy is zero nowhere else, as no class has a probability of zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pmexp.models.objectives import IGNORED
from pmexp.training.loss_scale import are_of

_ON_PURPOSE = (
    "return the loss of all of them, unless it leaves some out on purpose, as mining of hard ones does"
)


class _Seen:
    """What was seen of a micro-batch: samples that its forwards computed, labels that a gradient reached."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.counts = labels.isfinite() if labels.is_floating_point() else labels != IGNORED
        self.reached = torch.zeros_like(self.counts)
        self.samples, self.has_gradient, self.tells = 0, False, True

    def see_forward(self, module: nn.Module, inputs: object, output: object) -> None:
        logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor) or not _are_samples(logits, self.labels):
            self.tells = False
        elif logits.requires_grad:  # those of a teacher need none
            self.samples += len(logits)
            if are_of(logits, self.labels):
                logits.register_hook(self._see_gradient)

    def _see_gradient(self, gradient: Tensor) -> None:
        self.has_gradient = True
        if type(gradient) is not Tensor or gradient.layout is not torch.strided:
            self.tells = False
        elif self.labels.is_floating_point():
            self.reached |= gradient.reshape(self.labels.shape) != 0
        else:
            self.reached |= gradient.any(dim=-1)


class LabelsReached:
    """Collects what the forwards and backwards of a step's micro-batches show."""

    def __init__(self) -> None:
        self._seen: list[_Seen] = []

    @contextmanager
    def watching(self, model: nn.Module, labels: Tensor) -> Iterator[None]:
        """A context around the method's loss of one micro-batch with these labels."""
        self._seen.append(_Seen(labels))
        hook = model.register_forward_hook(self._seen[-1].see_forward)
        try:
            yield
        finally:
            hook.remove()

    def said(self) -> str:
        """Says how many samples, or labels that count, the loss of the step leaves out; empty where it leaves
        out none, and where its forwards do not tell. To be called after the backward."""
        seen = self._seen
        if not seen or not all(one.tells and one.samples for one in seen):
            return ""
        samples, computed = sum(len(one.labels) for one in seen), sum(one.samples for one in seen)
        if computed < samples:
            said = f"runs the model on {computed} of {samples} samples of the first step"
        elif all(one.has_gradient for one in seen):
            every = sum(int(one.counts.sum()) for one in seen)
            missed = sum(int((one.counts & ~one.reached).sum()) for one in seen)
            said = f"has no gradient for {missed} of {every} labels of the first step" if missed else ""
        else:
            said = ""
        return f"variant.apply: the method's loss {said}; {_ON_PURPOSE}" if said else ""


def _are_samples(logits: Tensor, labels: Tensor) -> bool:
    """Whether `logits` are those of some samples, for labels of the shape of these."""
    if labels.is_floating_point():
        return logits.numel() == len(logits)
    return logits.dim() == labels.dim() + 1 and logits.shape[1:-1] == labels.shape[1:]
