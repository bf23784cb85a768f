"""Finds the repeated blocks of a model, which some parts treat one by one."""

from torch import nn
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
