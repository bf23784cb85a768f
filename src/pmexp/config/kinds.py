"""Lists the architectures of transformers that are supported, and what each calls its dropout rates."""

from dataclasses import dataclass
from typing import Any

from pmexp.config.dataset import Objective
from pmexp.config.model import ModelKind


@dataclass(frozen=True)
class Architecture:
    model_type: str  # the architecture's name in transformers
    hidden_dropout: tuple[str, ...] = ("hidden_dropout_prob",)  # fields of its configuration
    attention_dropout: tuple[str, ...] = ("attention_probs_dropout_prob",)  # (): the other rate is of it too
    objectives: tuple[Objective, ...] = (Objective.classification, Objective.masked_lm)

    @property
    def rates(self) -> set[str]:
        return {*self.hidden_dropout, *self.attention_dropout}


_BERT_RATES = ("hidden_dropout_prob", "classifier_dropout")
_GPT: dict[str, Any] = {
    "hidden_dropout": ("resid_pdrop", "embd_pdrop"),
    "attention_dropout": ("attn_pdrop",),
    "objectives": (Objective.classification, Objective.causal_lm),
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
    ModelKind.gpt2: Architecture("gpt2", **_GPT),
    ModelKind.gptj: Architecture("gptj", **_GPT),
    ModelKind.llama: Architecture(  # nothing but its attention drops
        "llama", ("attention_dropout",), (), (Objective.classification, Objective.causal_lm)
    ),
    ModelKind.longformer: Architecture("longformer"),
    ModelKind.roberta: Architecture("roberta", _BERT_RATES),
    ModelKind.t5: Architecture("t5", ("dropout_rate",), (), (Objective.seq2seq,)),  # one rate of all places
    ModelKind.vilt: Architecture("vilt", objectives=(Objective.classification,)),
    ModelKind.vit: Architecture("vit", objectives=(Objective.classification,)),
}
