"""Has every layer keep its input alone and run again in backward: activation checkpointing."""

from torch import nn
from transformers import PreTrainedModel

from pmexp.errors import UserError
from pmexp.systems.base import SystemPart


class Checkpointing(SystemPart):
    """Has each layer run again in backward, in place of keeping what it saves."""

    def prepare(self, module: nn.Module) -> None:
        if not (isinstance(module, PreTrainedModel) and module.supports_gradient_checkpointing):
            raise UserError(
                f"system.parts: {type(module).__name__} does not support checkpointing; leave it out"
            )
        checkpoint_layers(module)


def checkpoint_layers(module: PreTrainedModel, reentrant: bool = False) -> None:
    """Has `module` run each of its layers again in backward, by the name that its transformers has for it."""
    newer = getattr(module, "activation_checkpointing_enable", None)
    (newer or module.gradient_checkpointing_enable)({"use_reentrant": reentrant})
