"""Makes the gradient of a step, by one engine a run."""

from pmexp.config import SHARDING, Part
from pmexp.config.complete import complete
from pmexp.systems.engines.base import Engine
from pmexp.systems.engines.ddp import Ddp
from pmexp.systems.engines.fsdp import FullyShard
from pmexp.systems.engines.zero import Zero1, Zero2, check_packages

__all__ = ["ENGINES", "Engine", "check_packages"]

_ENGINES: dict[Part, type[Engine]] = {
    Part.ddp: Ddp,
    Part.zero1: Zero1,
    Part.zero2: Zero2,
    Part.fsdp: FullyShard,
}
ENGINES = complete(_ENGINES, SHARDING)
