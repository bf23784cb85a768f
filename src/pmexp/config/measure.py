"""`measure.*`: the instruments."""

from dataclasses import dataclass, field

from pmexp.config.checks import check_at_least
from pmexp.errors import UserError


@dataclass(kw_only=True)
class MeasureConfig:
    """What is measured beside memory and time. Steps that an instrument slows are not timed."""

    flops: bool = True  # counts the operations of one step
    energy: bool = True  # sums the energy of all steps, by NVML where there is one
    updates: list[int] = field(default_factory=lambda: [1, 10, 100, 1000, 10000])  # steps to be compared
    profile: bool = False  # a few steps under torch.profiler
    nsight: bool = False  # ranges and the captured steps for Nsight Systems and Nsight Compute
    kept_graph: bool = False  # after the training, a forward whose graph is kept, and backward twice
    snapshot: bool = True  # keeps the CUDA allocator's where a run is out of memory

    def __post_init__(self) -> None:
        for step in self.updates:
            check_at_least("measure.updates", step, 1)
        self.updates = sorted(set(self.updates))
        if self.profile and self.nsight:
            raise UserError(
                "measure.profile and measure.nsight: both trace the device; set one of them to false"
            )
