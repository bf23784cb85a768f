"""Packed dropout of a plain CUDA tensor in one call of torch's dispatcher, forward and backward in C++.

By Python's calls a dropout costs the host five times what nn.Dropout costs it, and steps that the host bounds
become slower. calls.cpp does the same with the same kernels, seeds and bits. Whatever is not plain goes by
Python all the same: see `operator_for`.

`PMEXP_CUDA_CALLS` chooses, once, at the first dropout on a CUDA device, which is when the library is built:

    auto    native calls where the library is there or can be built, else Python's (default)
    native  those, or an error
    python  Python's
"""

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from pmexp.packed_dropout import cuda_backend, cuda_seeds
from pmexp.packed_dropout.native.build import NotBuilt, library

ENVIRONMENT_VARIABLE = "PMEXP_CUDA_CALLS"
_CHOICES = ("auto", "native", "python")
_PLAIN = (Tensor, nn.Parameter)

_operators: dict[int, Any] = {}  # by CUDA device: plain_dropout, or None


def operator_for(x: Tensor) -> Any:
    """pmexp::plain_dropout(x, p, bits, cache_unpacked) where it may be asked for a CUDA tensor; else None.

    It does what packed_dropout does by rng="philox" with a mask to draw, and returns None, with nothing drawn,
    where x is not plain after all: not contiguous, nested, a dual number, of another dtype, or captured into a
    CUDA graph.
    """
    if (
        type(x) not in _PLAIN
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state()
    ):
        return None
    device = x.get_device()
    return _operators[device] if device in _operators else _decide(x.device)


def calls() -> str:
    """Who calls the kernels, for a run's record: "native calls", or "calls by Python: <reason>".

    Raises RuntimeError for an unknown choice, and where native calls are asked for and cannot be had.
    """
    reason = _why_python()
    return "native calls" if reason is None else f"calls by Python: {reason}"


def _decide(device: torch.device) -> Any:
    if torch.cuda.is_current_stream_capturing():
        return None  # what is asked of the device here cannot be captured
    served = _why_python() is None and cuda_seeds.known_on_host(device)
    _operators[device.index] = torch.ops.pmexp.plain_dropout.default if served else None
    return _operators[device.index]


@cache
def _why_python() -> str | None:
    """Why there are no native calls here; None where there are. Builds and loads the library."""
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    if choice not in _CHOICES:
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}={choice} is unknown; choose one of {', '.join(_CHOICES)}")
    if choice == "python":
        return f"{ENVIRONMENT_VARIABLE}=python"
    reason = _why_not_loaded()
    if reason is not None and choice == "native":
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}=native cannot be had: {reason}")
    return reason


def _why_not_loaded() -> str | None:
    if not cuda_backend.has_kernels() or torch.version.hip:
        return "no kernels of Triton for CUDA"
    try:
        torch.ops.load_library(library())
    except NotBuilt as error:
        return str(error)
    except (OSError, RuntimeError) as error:
        return f"not loaded: {str(error).splitlines()[0]}"
    from pmexp.packed_dropout import triton_launch  # with Triton, which takes a second

    triton_launch.forget()  # so that what has been launched is launched by Triton once more, and registered
    return None
