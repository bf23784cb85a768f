"""Lists the stages, what matters most first, and the time of each. Imports neither torch nor a stage."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage: the module `<package>.<name>`, in a process of its own."""

    name: str
    title: str
    seconds: int  # its share of the time, of TOTAL_SECONDS
    package: str = "pmexp.bench.gpu.stages"

    @property
    def module(self) -> str:
        return f"{self.package}.{self.name}"


STAGES = (
    Stage("correctness", "Correctness", 60),
    Stage("bandwidth", "Bandwidth and the host's cost of one dropout", 76),
    Stage("native_calls", "Native calls of packed dropout against those by Python", 25),
    Stage("launch_bound", "Small steps, bound by launches", 120),
    Stage("memory", "BERT-Large at 512 tokens: speed, peak memory, and the simulated peak", 110),
    Stage("systems", "Attention kernels, Tempo, offload, LoRA", 108),
    Stage("largest_batch", "Largest batch of BERT-Large at 512 tokens", 36),
)
TOTAL_SECONDS = sum(stage.seconds for stage in STAGES)
