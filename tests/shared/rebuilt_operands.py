"""A training step whose dropped operands are made again, against the plain one, for tests of rebuilding."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.packed_dropout.followed_casts import run_followed
from pmexp.packed_dropout.origins import rebuildable_dropout
from pmexp.packed_dropout.rebuild import rebuilding, watching

Step = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
SHAPE = (2, 3, 4, 8)
WEIGHT = torch.linspace(-1, 1, 8 * 8).view(8, 8)
OPTIONS: dict[str, Any] = {"bits": 1, "cache_unpacked": True, "rng": "philox", "flip_rate": 0.0}
DROP = partial(rebuildable_dropout, p=0.3, training=True, **OPTIONS)


def gate(x: Tensor) -> Tensor:
    return F.silu(x) * x.sin()


def train(
    step: Step,
    again: bool,
    dtype: torch.dtype = torch.float32,
    autocast: bool = False,
    followed: bool = False,
) -> list[Tensor]:
    """Output and gradients of a step whose dropped operands are made again or not.

    followed: whether its casts and copies are followed, as in a forward that drops.
    """
    torch.manual_seed(3)
    x = torch.randn(SHAPE).to(dtype).requires_grad_()
    weight = WEIGHT.to(dtype).clone().requires_grad_()
    made_again = rebuilding() if again else nullcontext()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), made_again:
        output = run_followed({}, step, (x, DROP), (x,)) if again and followed else step(x, DROP)
    gradients = torch.autograd.grad(output.float().square().sum(), (x, weight), allow_unused=True)
    return [output, *(gradient for gradient in gradients if gradient is not None)]


def assert_made_again(step: Step, operands: int | None = None, **options: Any) -> None:
    """Asserts the numbers of a plain step, and that so many operands were made again."""
    made: list[Any] = []
    with watching(made.append):
        results = [train(step, again, **options) for again in (False, True)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert (len(made) > 0) if operands is None else len(made) == operands


def row_by_row() -> saved_tensors_hooks:
    """Saves as save_on_cpu does from a device."""
    return saved_tensors_hooks(
        partial(torch.clone, memory_format=torch.contiguous_format), lambda saved: saved
    )
