"""Compares native calls on a device with Python's: of torch's generators they take what is no interface."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_DTYPES, _NUMELS = (torch.float32, torch.bfloat16), (4096, 4099)
_P = 0.3


def same_as_python(device: torch.device, native: Callable[..., Tensor | None]) -> bool:
    """Whether `native`, the operator that drops, gives output, gradient and generator of Python's calls.

    Both draw from generators of their own, since other threads may draw from the default one meanwhile, and
    hooks of saved tensors around see nothing. Python goes first: native calls launch what it launched.
    """
    # It is imported late, since it asks this package for native calls.
    from pmexp.packed_dropout.functional import dropped_by
    from pmexp.packed_dropout.options import Options

    options = Options(_P, bits=1, cache_unpacked=True, rng="philox", flip_rate=0.0)

    def by_python(generator: torch.Generator, x: Tensor) -> Tensor:
        return dropped_by(generator, x, options)

    def by_native(generator: torch.Generator, x: Tensor) -> Tensor | None:
        return native(x, _P, options.bits, options.cache_unpacked, generator)

    unseen = saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with torch.inference_mode(False), torch.enable_grad(), unseen:
        for dtype, numel in itertools.product(_DTYPES, _NUMELS):
            x = torch.arange(1, numel + 1, device=device).to(dtype).requires_grad_()
            expected = _results(by_python, x)
            if not all(map(torch.equal, _results(by_native, x), expected)):
                return False
    return True


def _results(drop: Callable[[torch.Generator, Tensor], Any], x: Tensor) -> list[Tensor]:
    """Output, gradient and the generator's state afterwards."""
    generator = torch.Generator(x.device).manual_seed(2**62 + 5)
    y = drop(generator, x)
    loss = (y * x.detach().flip(0)).sum()  # a gradient that is handed over has torch import sympy
    return [y, *torch.autograd.grad(loss, x), generator.get_state()]
