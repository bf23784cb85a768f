"""What a system part may do; the base does nothing."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


class SystemPart:
    def prepare(self, module: nn.Module) -> None:
        """Changes the model once, after the variant is in place and the model is on its device."""

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """Entered around each forward."""
        return nullcontext()
