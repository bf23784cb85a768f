"""`system.*`: the parts of the system stack, the device and the processes."""

from dataclasses import dataclass, field
from enum import Enum

from pmexp.config.checks import check_at_least
from pmexp.errors import UserError
from pmexp.own_code import check_import_path


class Part(Enum):
    """Names the parts that a system stack is made of."""

    ddp = "ddp"
    zero1 = "zero1"
    zero2 = "zero2"
    fsdp = "fsdp"
    bf16 = "bf16"
    fp16 = "fp16"
    checkpointing = "checkpointing"
    flash = "flash"
    xformers = "xformers"
    tempo = "tempo"
    offload = "offload"
    compile = "compile"


SHARDING = (Part.ddp, Part.zero1, Part.zero2, Part.fsdp)  # parts that spread a run over processes
# A stack has at most one part out of each.
_ONE_OF = (SHARDING, (Part.bf16, Part.fp16), (Part.flash, Part.xformers))


class Device(Enum):
    """Names what a run is executed on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Matmul(Enum):
    """How products of float32 matrices are computed, by the names of torch.set_float32_matmul_precision."""

    highest = "highest"
    high = "high"
    medium = "medium"


@dataclass(kw_only=True)
class SystemConfig:
    """Holds the keys of the group `system`."""

    parts: list[Part] = field(default_factory=list)  # see docs/systems.md; their order has no meaning
    own_parts: list[str] = field(default_factory=list)  # mypkg.MyPart: subclasses of systems.base.SystemPart
    device: Device = Device.auto  # auto: CUDA where there is one; the record says which
    processes: int = 1  # over which the global batch is spread; more than one need ddp, zero1, zero2 or fsdp
    matmul: Matmul = Matmul.highest  # precision of float32 products; high: TF32 on CUDA
    deterministic: bool = False  # torch's deterministic algorithms alone, in cuBLAS and cuDNN as well
    name: str = ""  # derived: the parts joined by "-", "plain" without any

    def __post_init__(self) -> None:
        """Puts the parts into the order of `Part`: the one they are listed in means nothing."""
        if len(set(self.parts)) != len(self.parts):
            raise UserError(f"system.parts: {[p.name for p in self.parts]} names a part twice; name it once")
        for path in self.own_parts:
            check_import_path("system.own_parts", path)
        check_at_least("system.processes", self.processes, 1)
        for group in _ONE_OF:
            chosen = [part.name for part in group if part in self.parts]
            if len(chosen) > 1:
                raise UserError(
                    f"system.parts: {' and '.join(chosen)} exclude each other; choose one of them"
                )
        if self.sharding in (Part.zero1, Part.zero2) and Part.fp16 in self.parts:
            raise UserError(
                f"system.parts: {self.sharding.name} and fp16 exclude each other, since DeepSpeed clips the "
                "scaled gradient; choose bf16, or fp16 with ddp or fsdp"
            )
        self._check_processes()
        self.parts = [part for part in Part if part in self.parts]
        own = [path.rpartition(".")[2] for path in self.own_parts]
        self.name = "-".join([*(part.name for part in self.parts), *own]) or "plain"

    @property
    def sharding(self) -> Part | None:
        """The part that spreads the run over its processes."""
        return next((part for part in SHARDING if part in self.parts), None)

    def _check_processes(self) -> None:
        if self.processes > 1 and self.sharding is None:
            raise UserError(
                f"system.processes: {self.processes} processes need a part that spreads the run over them; "
                f"add one of {', '.join(part.name for part in SHARDING)} to system.parts"
            )
        if self.processes == 1 and self.sharding is not None:
            raise UserError(
                f"system.parts: {self.sharding.name} spreads a run over processes and there is one; "
                "set system.processes=2 or more, or leave it out"
            )
