"""How a step is executed: parts that compose, each with one file."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from pmexp.config import Device, Part, SystemConfig
from pmexp.errors import UserError
from pmexp.systems import bf16, checkpointing, flash
from pmexp.systems.base import SystemPart
from pmexp.systems.tempo import Tempo

PARTS: dict[Part, SystemPart] = {
    Part.bf16: bf16.Bf16(),
    Part.checkpointing: checkpointing.Checkpointing(),
    Part.flash: flash.Flash(),
    Part.tempo: Tempo(),
}


class System:
    """The parts of one run, applied in their listed order, on one device."""

    def __init__(self, config: SystemConfig) -> None:
        self.parts = [PARTS[part] for part in config.parts]
        self.device = _device(config.device)

    def before_variant(self, module: nn.Module) -> None:
        """Lets every part change the model while its dropout is still its own."""
        for part in self.parts:
            part.before_variant(module, self.device, half=self.precision != "fp32")

    def prepare(self, module: nn.Module) -> None:
        """Moves the model to the device and lets every part change it."""
        module.to(self.device)
        for part in self.parts:
            part.prepare(module)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around each forward and its loss."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.forward(self.device))
            yield

    def record(self, module: nn.Module) -> dict[str, str]:
        """What the parts have to say about the run."""
        return {key: value for part in self.parts for key, value in part.record(module).items()}

    @property
    def precision(self) -> str:
        return "bf16 autocast" if PARTS[Part.bf16] in self.parts else "fp32"


def _device(wanted: Device) -> torch.device:
    if wanted is Device.cuda and not torch.cuda.is_available():
        raise UserError("system.device: cuda is not available to this torch; set system.device=cpu or auto")
    if wanted is Device.auto:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted.name)
