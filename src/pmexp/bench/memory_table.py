"""Prints what level=memory measured of one model, and whether its targets are met."""

from collections.abc import Sequence
from dataclasses import dataclass

from pmexp.bench.memory_models import Sizes
from pmexp.bench.memory_workloads import REBUILT, MemoryModel, P, Target

_MIB = 2**20
_COLUMNS = ("saved MiB", "alive MiB", "peak MiB", "ms a step [95 %]", "rebuilt keeps", "rebuilt takes [95 %]")
_HEAD = f"{{:<14}}{'{:>11}' * 3}{{:>26}}{{:>15}}{{:>23}}"


@dataclass(frozen=True)
class MemoryRow:
    """What one way took in one model: a line of memory.csv."""

    model: str
    way: str
    saved_bytes: int  # that autograd saves for backward, by the ledger
    alive_bytes: int  # of storages that a forward leaves alive
    peak_bytes: int  # the most of such bytes in a step, gradients among them
    ms: float  # forward and backward: the median over rounds
    ms_low: float  # where its 95 % interval begins
    ms_high: float
    rebuilt_saved: float  # saved bytes of `rebuilt`, as a share of this way's
    rebuilt_time: float  # time of `rebuilt` over this way's, round by round: below 1 `rebuilt` is faster
    rebuilt_time_low: float
    rebuilt_time_high: float


def table(workload: MemoryModel, sizes: Sizes, rows: Sequence[MemoryRow], targets: Sequence[Target]) -> str:
    """A line a way, and one a target. `rows`: those of this workload."""
    shape = f"{sizes.batch} x {sizes.tokens} tokens, {sizes.width} wide"
    lines = [f"{workload.name}: {workload.what}; {shape}, p = {P}", _HEAD.format("", *_COLUMNS)]
    lines += [_line(row) for row in rows]
    of = {row.way: row for row in rows}
    lines += [_verdict(target, of[target.rival]) for target in targets]
    return "\n".join(lines)


def _line(row: MemoryRow) -> str:
    sizes = (f"{size / _MIB:.2f}" for size in (row.saved_bytes, row.alive_bytes, row.peak_bytes))
    ms = f"{row.ms:.1f} [{row.ms_low:.1f}, {row.ms_high:.1f}]"
    times = f"{row.rebuilt_time:.3f} [{row.rebuilt_time_low:.3f}, {row.rebuilt_time_high:.3f}]"
    return _HEAD.format(row.way, *sizes, ms, f"{row.rebuilt_saved:.3f}", times)


def _verdict(target: Target, rival: MemoryRow) -> str:
    if target.what == "saved":
        value = low = high = rival.rebuilt_saved
        what = "keeps"
    else:
        value, low, high = rival.rebuilt_time, rival.rebuilt_time_low, rival.rebuilt_time_high
        what = "takes"
    met = "met" if high <= target.most else "missed" if low > target.most else "not settled"
    return f"  {REBUILT} {what} {value:.3f} of {rival.way}; target: at most {target.most:g}: {met}"
