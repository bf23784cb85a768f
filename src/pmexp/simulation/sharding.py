"""States what one of several processes holds, in multiples of what a process alone holds, for each engine.

Read off two real processes on gloo (torch 2.13, DeepSpeed 0.19.8), with the allocator watched by torch's
profiler: what lies there between steps, and for ddp and ZeRO after backward, is this within 0.5 % of the
parameters' bytes. fsdp holds more until Python collects its garbage. Never measured on CUDA.
"""

from dataclasses import dataclass

from pmexp.simulation.live_bytes import FROZEN, Snapshot
from pmexp.simulation.step import FORWARD, UPDATE

_BUCKET = 4 * 500_000_000  # bytes: DeepSpeed's reduce_bucket_size, in fp32, taken whole in each backward


@dataclass(frozen=True)
class Sharding:
    """Says which share of each kind of tensor one rank holds."""

    parameters: float = 1.0  # those that train, from forward to backward
    parameters_in_update: float = 1.0
    frozen: float = 1.0  # those that do not train, from forward to backward
    frozen_in_update: float = 1.0
    gradients: float = 1.0
    kept_gradients: float = (
        0.0  # memory that gradients keep all the time, as a share of the trained parameters
    )
    optimizer: float = 1.0  # its state, and what its step makes
    bucket_bytes: int = 0  # beside the gradients, in backward
    bucket_in_forward: bool = False  # whether the bucket is also there in the second micro-batch's forward

    @property
    def shares(self) -> dict[str, float]:
        """The shares, for LiveBytes, that this process has of what comes and goes within a step."""
        return {"gradients": self.gradients, "optimizer": self.optimizer}

    def held(self, phase: str, peak: Snapshot) -> Snapshot:
        """The peak of a phase with what lies there all the time."""
        categories = dict(peak.by_category)
        whole = categories["parameters"]
        update = phase == UPDATE
        categories["parameters"] = round(whole * (self.parameters_in_update if update else self.parameters))
        if FROZEN in categories:
            share = self.frozen_in_update if update else self.frozen
            categories[FROZEN] = round(categories[FROZEN] * share)
        categories["gradients"] += round(whole * self.kept_gradients)
        if phase != UPDATE and (phase != FORWARD or self.bucket_in_forward):
            categories["temporaries"] += self.bucket_bytes
        return Snapshot(categories)


def sharding_of(part: str | None, processes: int, accumulate: int) -> Sharding:
    """What one of `processes` holds where `part` of system.parts spreads a run over them.

    ddp     gradients are copied into buckets that stay, those of earlier micro-batches lie beside them
    zero    each process has the parameters, and a shard of the trained ones in fp32 for its optimizer. Over
            several micro-batches DeepSpeed keeps as much again as these, and with stage 1 the bucket and
            the whole gradient (of which the update, here not, has a shard only)
    fsdp    shards, and from forward to backward the whole parameters beside them
    """
    split, several = 1 / processes, accumulate > 1
    match part:
        case "ddp":
            return Sharding(gradients=float(several), kept_gradients=1.0)
        case "zero1" | "zero2":
            whole = part == "zero1" and several
            return Sharding(
                parameters=1 + split,
                parameters_in_update=1 + split,
                gradients=1.0 if whole else split,
                kept_gradients=float(several),
                optimizer=split,
                bucket_bytes=_BUCKET,
                bucket_in_forward=whole,
            )
        case "fsdp":
            return Sharding(
                parameters=1 + split,
                parameters_in_update=split,
                frozen=1 + split,
                frozen_in_update=split,
                gradients=split,
                optimizer=split,
            )
        case _:
            return Sharding()
