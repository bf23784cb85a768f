"""Makes one system of the parts that a run's configuration names."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import nn

from pmexp.config import SHARDING, Device, Part, SystemConfig
from pmexp.config.complete import complete
from pmexp.errors import UserError
from pmexp.own_code import called, of_own_code
from pmexp.shown import class_of
from pmexp.systems import checkpointing, compile, flash, offload, xformers
from pmexp.systems.autocast import Autocast
from pmexp.systems.base import SystemPart
from pmexp.systems.engines import ENGINES, check_packages
from pmexp.systems.engines.base import Engine
from pmexp.systems.ranks import Ranks, check_started
from pmexp.systems.tempo import Tempo

_PARTS: dict[Part, SystemPart] = {
    Part.bf16: Autocast(torch.bfloat16),
    Part.fp16: Autocast(torch.float16),
    Part.checkpointing: checkpointing.Checkpointing(),
    Part.flash: flash.Flash(),
    Part.xformers: xformers.Xformers(),
    Part.tempo: Tempo(),
    Part.offload: offload.Offload(),
    Part.compile: compile.Compile(),
}
_OWN_PARTS = "system.own_parts"
PARTS = complete(_PARTS, (part for part in Part if part not in SHARDING))


class System:
    """Holds the parts of one run on one device."""

    def __init__(self, config: SystemConfig) -> None:
        """Raises UserError where this machine cannot execute the parts."""
        self.config = config
        own = [_OwnPart(path) for path in config.own_parts]
        self.parts = [*(PARTS[part] for part in config.parts if part not in SHARDING), *own]
        self.device = _device(config.device)
        for part in self.parts:
            part.check(self.device)
        check_started(config)
        if config.sharding in (Part.zero1, Part.zero2):
            check_packages(config.sharding.name)

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
        """Opens the context of every part, around each forward and its loss."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.forward(self.device))
            yield

    def record(self, module: nn.Module) -> dict[str, str]:
        """Returns what the parts did, for the run's record."""
        return {key: value for part in self.parts for key, value in part.record(module).items()}

    def engine(self, ranks: Ranks, clip_norm: float | None) -> Engine:
        """Returns the engine that makes and applies the gradients of a run on these processes."""
        engine = ENGINES[self.config.sharding] if self.config.sharding else Engine
        return engine(ranks, self.device, clip_norm, scale_loss=Part.fp16 in self.config.parts)

    @property
    def precision(self) -> str:
        lowered = [part.name for part in (Part.bf16, Part.fp16) if part in self.config.parts]
        return f"{lowered[0]} autocast" if lowered else "fp32"


class _OwnPart(SystemPart):
    """Calls a part of somebody's own; what fails in it is one line that names it."""

    def __init__(self, path: str) -> None:
        """Raises UserError where it cannot be had."""
        self._path, self._part = path, called(_OWN_PARTS, path, (), {}, _OWN_PARTS)
        if not isinstance(self._part, SystemPart):
            raise UserError(
                f"{_OWN_PARTS}: {path}: is no subclass of pmexp.systems.base.SystemPart; make it one"
            )

    def check(self, device: torch.device) -> None:
        with of_own_code(_OWN_PARTS, self._path):
            self._part.check(device)

    def before_variant(self, module: nn.Module, device: torch.device, half: bool) -> None:
        with of_own_code(_OWN_PARTS, self._path):
            self._part.before_variant(module, device, half)

    def prepare(self, module: nn.Module) -> None:
        with of_own_code(_OWN_PARTS, self._path):
            self._part.prepare(module)
        with self.forward(
            next(module.parameters()).device
        ):  # one that is no context is refused before a step
            pass

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        with of_own_code(_OWN_PARTS, self._path):
            context: AbstractContextManager[object] = self._part.forward(device)
        if not hasattr(context, "__enter__"):
            raise UserError(
                f"{_OWN_PARTS}: {self._path}: its forward returns {class_of(context)}; return a context"
            )
        return context

    def record(self, module: nn.Module) -> dict[str, str]:
        with of_own_code(_OWN_PARTS, self._path):
            record: object = self._part.record(module)
        if not isinstance(record, Mapping):
            raise UserError(
                f"{_OWN_PARTS}: {self._path}: its record returns {class_of(record)}; return a mapping"
            )
        # By their path, so that they stand in the place of nothing that is measured.
        return {f"{self._path}.{key}": str(value) for key, value in record.items()}


def _device(wanted: Device) -> torch.device:
    if wanted is Device.cuda and not torch.cuda.is_available():
        raise UserError("system.device: cuda is not available to this torch; set system.device=cpu or auto")
    if wanted is Device.auto:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted.name)
