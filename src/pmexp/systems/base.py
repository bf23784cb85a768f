"""Defines what a system part may do; the base does nothing."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


class SystemPart:
    """Changes how a step is executed: the model once, each forward, or both."""

    def check(self, device: torch.device) -> None:
        """Raises UserError where this machine cannot execute the part on `device`."""

    def before_variant(self, module: nn.Module, device: torch.device, half: bool) -> None:
        """Changes the model once, before dropout is replaced: for what decides which dropout there is.

        The model is not on `device` yet; `half` says that the run computes in half precision.
        """

    def prepare(self, module: nn.Module) -> None:
        """Changes the model once, after the variant is in place and the model is on its device."""

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """Returns a context that is entered around each forward."""
        return nullcontext()

    def record(self, module: nn.Module) -> dict[str, str]:
        """Returns what the part did, for the run's record, asked when the run ends."""
        return {}
