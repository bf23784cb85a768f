"""Compares native calls on a device with Python's: of torch's generators they take what is no interface."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.packed_dropout import cuda_rng

_DTYPES, _NUMELS = (torch.float32, torch.bfloat16), (4096, 4099)
_P = 0.3


def same_as_python(device: torch.device, native: Callable[..., Tensor | None]) -> bool:
    """Whether `native`, the operator that drops, gives output, gradient and generator of Python's calls.

    The generator is left as it was, and hooks of saved tensors around see nothing. Python goes first: native
    calls launch what it launched. `packed_dropout` has to go by Python meanwhile.
    """
    # It is imported late, since it asks this package for native calls.
    from pmexp.packed_dropout.functional import (
        packed_dropout,
    )

    unseen = saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with (
        _generator(device) as generator,
        torch.inference_mode(False),
        torch.enable_grad(),
        unseen,
    ):
        for dtype, numel in itertools.product(_DTYPES, _NUMELS):
            x = torch.arange(1, numel + 1, device=device).to(dtype).requires_grad_()
            start = generator.get_state()
            expected = _results(lambda x: packed_dropout(x, _P), x, generator)
            generator.set_state(start)
            by_native = _results(lambda x: native(x, _P, 1, True), x, generator)
            if not all(map(torch.equal, by_native, expected)):
                return False
    return True


def _generator(device: torch.device) -> AbstractContextManager[torch.Generator]:
    """Lends the default generator of `device`, and leaves it as it was."""
    return _generator_of_cpu() if device.type == "cpu" else cuda_rng.generator_for_comparison(device)


@contextmanager
def _generator_of_cpu() -> Iterator[torch.Generator]:
    generator = torch.default_generator
    before = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(before)


def _results(drop: Callable[[Tensor], Any], x: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Output, gradient and the generator's state afterwards."""
    y = drop(x)
    loss = (y * x.detach().flip(0)).sum()  # a gradient that is handed over has torch import sympy
    return [y, *torch.autograd.grad(loss, x), generator.get_state()]
