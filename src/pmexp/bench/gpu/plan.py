"""What is measured, the most telling first, as far as the time goes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.checks import check_losses, check_masks
from pmexp.bench.gpu.largest import measure_largest
from pmexp.bench.gpu.steps import free_memory, measure_steps
from pmexp.bench.gpu.workload import VARIANTS, Size, Workload
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.packed_dropout import torch_rng_record

STEPS, LARGEST = "steps", "largest batch"
_ATTENTIONS, _PRECISIONS = ("eager", "sdpa"), ("bf16", "fp32")
_PARTS = (
    (STEPS, "bf16", _ATTENTIONS),
    (LARGEST, "bf16", ("eager",)),
    (STEPS, "fp32", _ATTENTIONS),
    (LARGEST, "bf16", ("sdpa",)),
)
_SHORTEST = 10.0  # seconds that a piece of work takes at least, for all that is known before the first

Record = dict[str, Any]  # what is written: plain types


@dataclass(frozen=True)
class Work:
    """One piece of work."""

    what: str
    size: Size
    attention: str
    precision: str

    def __str__(self) -> str:
        return f"{self.size.name}, {self.attention}, {self.precision}: {self.what}"


def plan(sizes: Sequence[Size]) -> list[Work]:
    """Every piece of work, in its order."""
    return [
        Work(what, size, attention, precision)
        for what, precision, attentions in _PARTS
        for size in sizes
        for attention in attentions
    ]


def execute(
    record: Record,
    device: torch.device,
    sizes: Sequence[Size],
    rounds: int,
    budget: Budget,
    write: Callable[[Record], None],
) -> None:
    """Checks, then works through the plan, adding to `record` and writing it after every piece.

    What is not measured is named under "left_out", from the beginning on. A piece begins where there is time
    for twice what the longest one took. Raises ContenderFailed where a check fails: nothing was written then.
    """
    todo = plan(sizes)
    record |= {"checks": _checks(device, sizes[0]), "torch_masks": torch_rng_record()}
    record |= {"steps": [], "largest": [], "notes": [], "left_out": [f"{work}: not begun" for work in todo]}
    write(record)
    longest = _SHORTEST
    for done, work in enumerate(todo):
        if not budget.allows(longest):
            return
        before = budget.left
        record["left_out"].remove(f"{work}: not begun")
        _do(work, record, device, rounds, budget.part(len(todo) - done))
        free_memory()
        write(record)
        longest = max(longest, before - budget.left)


def _checks(device: torch.device, size: Size) -> list[str]:
    found = [check_masks(device)]
    for precision in _PRECISIONS:
        found += [check_losses(size, attention, precision, device) for attention in _ATTENTIONS]
    return found


def _do(work: Work, record: Record, device: torch.device, rounds: int, budget: Budget) -> None:
    try:
        workload = Workload(work.size, work.attention, work.precision, device, _variants(work.attention))
        if work.what == STEPS:
            rows, notes = measure_steps(workload, rounds, budget)
            record["steps"] += map(asdict, rows)
            record["notes"] += notes
        else:
            record["largest"] += map(asdict, measure_largest(workload, budget))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        record["left_out"].append(f"{work}: one sample has no room")


def _variants(attention: str) -> list[str]:
    """Inside the sdpa kernel there is nothing to recompute."""
    return [name for name in VARIANTS if attention == "eager" or name != "pm-drop-recompute"]
