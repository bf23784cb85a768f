"""Notices that the attention of a model was changed after its dropout was replaced."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch._compile import _disable_dynamo

from pmexp.packed_dropout.report import KERNEL_UNSEEN, ReplacementReport
from pmexp.packed_dropout.routed_modules import CHOICE, add_route, is_routed, put_routed_dropout

_KEPT_UNDER = (
    "_attn_implementation_internal"  # where a configuration's `_attn_implementation` keeps its value
)


@dataclass
class ChosenAttention:
    """Holds what a module's attention was, and what its functional dropout is sent to if that is eager."""

    report: ReplacementReport
    name: str  # the module's, in the model
    dropout: nn.Module
    attention: str

    def follow(self, module: nn.Module) -> None:
        """Routes `module` where its attention now lets it, else says that its dropout is out of reach."""
        attention = attention_of(module)
        if attention == self.attention:
            return
        if torch.compiler.is_compiling():
            self._attention_was_changed_after_replace_dropout(module)
            return
        self.attention = attention
        if self.name in self.report.functions:
            self.report.functions.remove(self.name)
        self.report.attention.pop(self.name, None)
        if reason := why_attention_stays(attention):
            self.report.left[self.name] = reason
            warnings.warn(f"the attention was changed after replace_dropout: {reason}", stacklevel=2)
            return
        if not is_routed(module):
            put_routed_dropout(module, self.dropout)
            add_route(module)
        self.report.left.pop(self.name, None)
        if attention == "eager":
            self.report.functions.append(self.name)
        else:
            self.report.attention[self.name] = KERNEL_UNSEEN

    @_disable_dynamo
    def _attention_was_changed_after_replace_dropout(self, module: nn.Module) -> None:
        """Follows the change between two graphs, since it changes a class. fullgraph=True refuses that, and
        names this method: one call of the model without torch.compile, and it can be compiled again."""
        self.follow(module)


def notice_another_attention(
    module: nn.Module, name: str, dropout: nn.Module, report: ReplacementReport
) -> None:
    """Has each forward of `module`, called `name` in its model, look whether its attention is another."""
    vars(module)[CHOICE] = ChosenAttention(report, name, dropout, attention_of(module))


def attention_of(module: nn.Module) -> str:
    """Returns the attention that the configuration of `module` asks for."""
    config = getattr(module, "config", None)
    if config is not None and not torch.compiler.is_compiling():
        try:  # past the lookup of transformers' configurations, which takes as long as a small dropout
            kept: str | None = object.__getattribute__(config, "__dict__").get(_KEPT_UNDER)
            if kept:
                return kept
        except AttributeError:  # it has slots
            pass
    return getattr(config, "_attn_implementation", None) or "eager"


def why_attention_stays(attention: str) -> str | None:
    """Returns why the dropout of probabilities under `attention` cannot be reached, or None where it can."""
    if attention == "eager" or "sdpa" in attention:
        return None
    return f"attention dropout lives inside the {attention} kernel; it needs eager attention"
