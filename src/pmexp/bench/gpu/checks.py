"""Checks that the variants compute what they should on this device: no figure is written before this."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from pmexp.bench.gpu.workload import BASELINE, TORCH_MASKS, Size, Workload
from pmexp.errors import ContenderFailed

STEPS = 3
_SAMPLES, _TOKENS, _LAYERS = 2, 128, 2  # sizes of the check's steps
_SAME_MASKS = ((BASELINE, TORCH_MASKS), ("pm-drop", "seed-only", "pm-drop-recompute"))


def check_losses(size: Size, attention: str, precision: str, device: torch.device) -> str:
    """Checks that the losses of a few training steps are the same, bit for bit, where the masks are: those of
    nn.Dropout and of pm-drop with rng=torch, and those of pm-drop, seed-only and pm-drop-recompute.

    A cut-down copy of the model takes the steps. A device whose backward sums in an order of its own gives
    other weights each time: then only the steps up to there are compared, and the first one at least.

    Returns what was compared. Raises ContenderFailed where losses differ.
    """
    layers = {**size.architecture, "num_hidden_layers": _LAYERS}
    small = replace(size, batch=_SAMPLES, length=min(size.length, _TOKENS), architecture=layers)
    compared = STEPS
    for first, *others in _SAME_MASKS:
        expected, again = (_losses(small, attention, precision, device, first) for _ in range(2))
        repeatable = max(1, _equal_steps(expected, again))
        compared = min(compared, repeatable)
        for variant in others:
            losses = _losses(small, attention, precision, device, variant)
            if _equal_steps(expected, losses) < repeatable:
                raise ContenderFailed(
                    f"{variant} under {attention} attention in {precision}: losses {losses} are not the "
                    f"{expected} of {first} with the same masks"
                )
    return (
        f"{attention}, {precision}: with the same masks the losses are the same, bit for bit, over "
        f"{compared} of {STEPS} steps"
    )


def _losses(size: Size, attention: str, precision: str, device: torch.device, variant: str) -> list[float]:
    workload = Workload(size, attention, precision, device, [variant])
    torch.manual_seed(1)  # the masks'
    return [workload.step(variant, size.batch).item() for _ in range(STEPS)]


def _equal_steps(first: Sequence[float], second: Sequence[float]) -> int:
    """How many steps from the first on have the same loss."""
    equal = [a == b for a, b in zip(first, second, strict=True)]
    return [*equal, False].index(False)
