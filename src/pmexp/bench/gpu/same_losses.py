"""Checks that steps compute the same: losses from the same weights and the same state of the generator.

The first loss shows the masks, the second one the update. Bits may differ, since a kernel may sum in an order
of its own, or another one be chosen while a step is captured; what counts is a difference that masks make.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pmexp.bench.gpu.workload import BASELINE, NO_DROPOUT, TORCH_MASKS, Workload

SAME_MASKS = {TORCH_MASKS: BASELINE, "seed-only": "pm-drop", "pm-drop-recompute": "pm-drop"}
_OF_OTHER_MASKS = 0.05  # a loss that differs by this share of what other masks change is taken for the same
_RELATIVE = (1e-5, 1e-3)  # as is this difference of the first loss, and of the second

Step = Callable[[], Tensor]  # takes a step and gives its loss


class Start:
    """The weights of a workload, and AdamW's state, at one moment: where several steps shall begin."""

    def __init__(self, workload: Workload, batch: int) -> None:
        """Each variant to be compared took a step before, so that AdamW has its state."""
        self._workload, self._batch = workload, batch
        self._values = [tensor.clone() for tensor in workload.state()]

    def restore(self) -> None:
        for tensor, value in zip(self._workload.state(), self._values, strict=True):
            tensor.copy_(value)

    def losses(self, step: Step, seed: int | None, steps: int = 2) -> list[float]:
        """Returns the losses of steps from here, with the generator at `seed` or where it is."""
        self.restore()
        if seed is not None:
            torch.manual_seed(seed)
        return [step().item() for _ in range(steps)]

    def of(self, variant: str, seed: int = 1) -> list[float]:
        return self.losses(lambda: self._workload.step(variant, self._batch), seed)


def variant_faults(workload: Workload, batch: int) -> dict[str, str]:
    """Returns what is wrong with a variant's losses, by variant; those that are right are missing."""
    start = Start(workload, batch)
    losses_of = {variant: start.of(variant) for variant in workload.variants}
    others = {variant: start.of(variant, seed=2) for variant in workload.variants}
    start.restore()
    faults = {}
    for variant, losses in losses_of.items():
        same = SAME_MASKS.get(variant, variant)
        fault = difference(losses_of[same], losses, others[same])
        if fault is None and (losses[0] == others[variant][0]) != (variant == NO_DROPOUT):
            fault = f"losses {losses} with one seed and {others[variant]} with another"
        if fault is not None:
            faults[variant] = fault
    return faults


def replay_fault(workload: Workload, variant: str, batch: int, replay: Step) -> str | None:
    """Returns what is wrong with a captured step, or None: a replay is an eager step, each with masks of its
    own."""
    start = Start(workload, batch)
    expected, others = start.of(variant), start.of(variant, seed=2)
    replayed, again = start.losses(replay, 1), start.losses(replay, None)
    start.restore()
    fault = difference(expected, replayed, others)
    if fault is None and (again[0] == replayed[0]) != (variant == NO_DROPOUT):
        fault = f"replays from the same weights give {replayed[0]} and {again[0]}"
    return fault


def difference(expected: Sequence[float], got: Sequence[float], others: Sequence[float]) -> str | None:
    """Says how two losses differ from those expected, or returns None. `others` are those of other masks."""
    fault = f"losses {list(got)} are not the expected {list(expected)} (with other masks {list(others)})"
    if not all(map(math.isfinite, (*got, *expected))):
        return fault
    limits = [relative * abs(loss) for relative, loss in zip(_RELATIVE, expected, strict=True)]
    limits[0] = max(limits[0], _OF_OTHER_MASKS * abs(others[0] - expected[0]))
    near = [abs(a - b) <= limit for a, b, limit in zip(expected, got, limits, strict=True)]
    return None if all(near) else fault
