"""Lists the architectures of transformers that are supported, and what each calls its dropout rates.

An architecture of kind auto has no entry: what its rates are called is told by the names of its fields.
"""

import re
from dataclasses import dataclass
from typing import Any

from pmexp.config.dataset import Objective
from pmexp.config.model import ModelConfig, ModelKind

_TEXT = (Objective.classification, Objective.regression, Objective.token_classification)


@dataclass(frozen=True)
class Architecture:
    """Says what an architecture calls its rates of dropout, and what it can be trained to tell."""

    model_type: str  # the architecture's name in transformers; "": the checkpoint's
    hidden_dropout: tuple[str, ...] = ("hidden_dropout_prob",)  # fields of its configuration
    attention_dropout: tuple[str, ...] = ("attention_probs_dropout_prob",)  # (): the other rate is of it too
    objectives: tuple[Objective, ...] = (*_TEXT, Objective.masked_lm)

    @property
    def rates(self) -> set[str]:
        return {*self.hidden_dropout, *self.attention_dropout}


_BERT_RATES = ("hidden_dropout_prob", "classifier_dropout")
_GPT: dict[str, Any] = {
    "hidden_dropout": ("resid_pdrop", "embd_pdrop"),
    "attention_dropout": ("attn_pdrop",),
}

KINDS = {
    ModelKind.bart: Architecture(
        "bart", ("dropout", "activation_dropout"), ("attention_dropout",), (Objective.seq2seq,)
    ),
    ModelKind.bert: Architecture("bert", _BERT_RATES),
    ModelKind.deberta_v2: Architecture("deberta-v2", ("hidden_dropout_prob", "pooler_dropout")),
    ModelKind.distilbert: Architecture(
        "distilbert", ("dropout", "seq_classif_dropout"), ("attention_dropout",)
    ),
    ModelKind.gpt2: Architecture("gpt2", **_GPT, objectives=(*_TEXT, Objective.causal_lm)),
    ModelKind.gptj: Architecture(
        "gptj", **_GPT, objectives=(Objective.classification, Objective.regression, Objective.causal_lm)
    ),
    ModelKind.llama: Architecture(  # nothing but its attention drops
        "llama", ("attention_dropout",), (), (*_TEXT, Objective.causal_lm)
    ),
    ModelKind.longformer: Architecture("longformer"),
    ModelKind.roberta: Architecture("roberta", _BERT_RATES),
    ModelKind.t5: Architecture("t5", ("dropout_rate",), (), (Objective.seq2seq,)),  # one rate of all places
    ModelKind.vilt: Architecture("vilt", objectives=(Objective.classification,)),
    ModelKind.vit: Architecture("vit", objectives=(Objective.classification,)),
}


def architecture_of(model: ModelConfig) -> Architecture:
    """Returns what is known of the model's architecture without transformers: of kind auto the rates that
    `model.architecture` states, and every objective, since its class alone can say which it serves."""
    if model.kind is not ModelKind.auto:
        return KINDS[model.kind]
    hidden, attention = rates_among(model.architecture)
    return Architecture(model.architecture.get("model_type") or "", hidden, attention, tuple(Objective))


def rates_among(fields: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns those of the names that are rates of dropout: of all places but attention, and of attention.

    A rate at which whole layers or samples are left out (layerdrop, drop_path_rate) is none.
    """
    rates = sorted(name for name in fields if re.search("dropout|pdrop$|dropatt$", name))
    attention = tuple(name for name in rates if "att" in name)
    return tuple(name for name in rates if name not in attention), attention
