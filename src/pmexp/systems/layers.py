"""Asks of a model what some parts need: repeated blocks, and an interface to its attention."""

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from pmexp.errors import UserError


def layers_of(module: nn.Module, part: str) -> list[nn.Module]:
    """The layers of a transformers model, in its order. Raises UserError for a model without such layers."""
    layers: list[nn.Module] = [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"system.parts: {part} works layer by layer and {type(module).__name__} has no layers of "
            "transformers; leave it out"
        )
    return layers


def with_attention_interface(module: nn.Module, part: str) -> PreTrainedModel:
    """Returns a model of transformers whose attention can be chosen by name. Raises UserError for another."""
    if not (
        isinstance(module, PreTrainedModel)
        and module._supports_sdpa
        and module._can_set_attn_implementation()
    ):
        raise UserError(
            f"system.parts: {part} has no attention for {type(module).__name__}, which knows eager attention "
            f"only; leave {part} out"
        )
    return module
