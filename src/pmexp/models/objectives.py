"""Says for each objective which class of transformers serves it, and computes its loss."""

import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from pmexp.config import Objective
from pmexp.config.complete import complete

IGNORED = -100  # a label that no loss and no metric counts, as in torch's cross_entropy

AUTO_CLASSES = complete(
    {  # for texts; pictures have classes of their own
        Objective.classification: AutoModelForSequenceClassification,
        Objective.regression: AutoModelForSequenceClassification,
        Objective.token_classification: AutoModelForTokenClassification,
        Objective.masked_lm: AutoModelForMaskedLM,
        Objective.causal_lm: AutoModelForCausalLM,
        Objective.seq2seq: AutoModelForSeq2SeqLM,
    },
    Objective,
)


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the loss summed over `labels`: the squared error where they are numbers, else cross-entropy.

    logits: float (..., classes), or (samples, 1) for numbers. labels: float (samples,), or int64 (...) of
    classes, of which IGNORED ones do not count. Cross-entropy is in nats; so is a squared error but for a
    constant, for numbers with noise of variance 1/2.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.flatten(), labels.flatten(), reduction="sum")
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def counted(labels: Tensor) -> int:
    """Returns how many labels count."""
    return labels.numel() if labels.is_floating_point() else int((labels != IGNORED).sum())
