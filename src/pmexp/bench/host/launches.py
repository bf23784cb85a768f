"""Compares what native calls launch with what Triton launches for Python's calls, parameter by parameter."""

import itertools

import torch

from pmexp.bench.host.stand_in import Launch, StandIn
from pmexp.errors import ContenderFailed
from pmexp.packed_dropout import native, packed_dropout

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_NUMELS = (2, 7, 16, 31, 32, 4096, 4097, 65537, 2**20 + 16)
_ON_TENSORS = ("x", "y")


def compare_launches(stand_in: StandIn) -> int:
    """Returns how many cases were compared. Raises ContenderFailed for the first that differs.

    A case is a dropout and its backward, for a dtype, number of elements, alignment, width of a stored mask
    value and rate. Equal are: kernel, grid, block, shared memory, stream, every number that is passed, and
    the generator's state; addresses are those of the tensors.
    """
    cases = list(itertools.product(_DTYPES, _NUMELS, (0, 1), (1, 2, 4), (0.1, 1 / 3, 0.5)))
    for case in cases:
        with native.by_python():
            expected = _launched(stand_in, *case)
        _launched(stand_in, *case)  # the first launch of a kind goes through Triton
        got = _launched(stand_in, *case)
        if got != expected:
            raise ContenderFailed(
                f"native calls launch otherwise than Python's: {case}: {got} and {expected}"
            )
    return len(cases)


def _launched(
    stand_in: StandIn, dtype: torch.dtype, numel: int, offset: int, bits: int, p: float
) -> tuple[list[Launch], list[int]]:
    """What a dropout and its backward launch, without addresses, and the generator's state behind it."""
    x = torch.zeros(numel + offset, dtype=dtype, device="cuda")[offset:].requires_grad_()
    weight = torch.zeros(numel, dtype=dtype, device="cuda")
    torch.manual_seed(7)
    with stand_in.noted() as launches:
        y = packed_dropout(x, p, bits=bits)
        (gradient,) = torch.autograd.grad(y, x, weight)
    tensors = [(x, y), (weight, gradient)]
    masks = set()
    for launch, pair in zip(launches, tensors, strict=True):
        addresses = [launch.parameters.pop(name) for name in _ON_TENSORS]
        masks.add(launch.parameters.pop("packed"))
        if addresses != [tensor.data_ptr() for tensor in pair]:
            raise ContenderFailed(f"{launch.kernel} is launched on other tensors than its own")
    if len(masks) != 1:
        raise ContenderFailed("backward reads another mask than forward has written")
    return launches, torch.cuda.get_rng_state().tolist()
