"""Whether the variants compute what they should on this device: no figure is written before this."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from pmexp.bench.gpu.workload import BASELINE, TORCH_MASKS, Size, Workload
from pmexp.errors import ContenderFailed
from pmexp.packed_dropout import ops, reference

STEPS = 3
_SAMPLES, _TOKENS, _LAYERS = 2, 128, 2  # of a step of the check
_SAME_MASKS = ((BASELINE, TORCH_MASKS), ("pm-drop", "seed-only", "pm-drop-recompute"))
_LENGTHS = (1, 7, 8, 33, 1001, 65537)  # elements of a mask
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_masks(device: torch.device, p: float = 0.1) -> str:
    """Packed masks, and what they make of a tensor, are those of the reference on the CPU, bit for bit.

    Returns what was compared. Raises ContenderFailed where they differ.
    """
    for numel in _LENGTHS:
        seed = torch.tensor([2**40 + numel])
        keep = reference.draw_mask(torch.Size([numel]), seed, p)
        for dtype in _DTYPES:
            x = torch.randn(numel, generator=torch.Generator().manual_seed(numel)).to(dtype)
            there, seed_there = x.to(device), seed.to(device)
            y, packed = ops.packed_dropout(there, seed_there, p, 1)
            found = (packed, y, ops.apply_packed_mask(there, packed, p, 1))
            dropped = reference.apply_mask(x, keep, p)
            expected = (reference.pack_bits(keep), dropped, dropped)
            if not all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True)):
                raise ContenderFailed(f"packed masks of {numel} elements in {dtype} are not the reference's")
    return f"packed masks of {_LENGTHS[0]} to {_LENGTHS[-1]} elements equal the reference's, bit for bit"


def check_losses(size: Size, attention: str, precision: str, device: torch.device) -> str:
    """The losses of a few training steps are the same, bit for bit, where the masks are the same: those of
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
            found = _losses(small, attention, precision, device, variant)
            if _equal_steps(expected, found) < repeatable:
                raise ContenderFailed(
                    f"{variant} under {attention} attention in {precision}: losses {found} are not the "
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
