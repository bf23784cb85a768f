"""Drops a plain CUDA tensor in one call of torch's dispatcher, forward and backward in C++.

By Python's calls a dropout costs the host five times what nn.Dropout costs it, and steps that the host bounds
become slower. calls.cpp does the same with the same kernels, seeds and bits. Whatever is not plain goes by
Python all the same: see `calls_for`.

`PMEXP_CUDA_CALLS` chooses, once, at the first dropout on a CUDA device, which is when the library is built:

    python  Python's calls (default, since native ones wait for their first measurement on a device)
    auto    native calls where the library is there or can be built, else Python's
    native  those, or an error where there is no library

The first use on a device compares the two (comparison.py). Where they differ, Python's are used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from pmexp.packed_dropout import cuda_backend, cuda_rng, cuda_seeds
from pmexp.packed_dropout.native.build import NotBuilt, library
from pmexp.packed_dropout.native.comparison import same_as_python
from pmexp.packed_dropout.transforms import is_rebuilding

ENVIRONMENT_VARIABLE = "PMEXP_CUDA_CALLS"
_CHOICES = ("auto", "native", "python")
_PLAIN = (Tensor, nn.Parameter)


class Calls(NamedTuple):
    """Holds the operators of the library.

    The two that draw return None, with nothing drawn, for what is not plain after all: not contiguous,
    nested, a dual number, of another dtype, without a mask to draw, or to be captured into a CUDA graph.
    """

    packed_dropout: Any  # takes (x, p, bits, cache_unpacked): packed_dropout() by rng="philox"
    dropout_and_bits: Any  # takes the same, and returns the packed mask as well
    apply_mask: Any  # takes (x, packed, p, bits): x * keep / (1 - p) for any x


_calls: dict[int, Calls | None] = {}  # keyed by CUDA device
_deciding = RLock()


def calls_for(x: Tensor) -> Calls | None:
    """Returns the native calls for a CUDA tensor, or None where Python has to make them.

    Python has to while anything traces or transforms, and for subclasses.
    """
    if (
        not x.is_cuda
        or torch.compiler.is_compiling()
        or type(x) not in _PLAIN
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state()
        or is_rebuilding()  # which asks a dropout's node for its bits
    ):
        return None
    device = x.get_device()
    return _calls[device] if device in _calls else _decide(x.device)


def calls(device: torch.device) -> str:
    """Who calls the kernels on a CUDA device, for a run's record: "native calls" or "calls by Python: <why>".

    Raises RuntimeError for an unknown choice, and where native calls are asked for and cannot be had.
    """
    reason = _why_python() or _why_python_on(device)
    return "native calls" if reason is None else f"calls by Python: {reason}"


def choose(choice: str) -> None:
    """Has this process decide anew, by `choice` in place of what PMEXP_CUDA_CALLS says."""
    os.environ[ENVIRONMENT_VARIABLE] = choice
    _why_python.cache_clear()
    _calls.clear()


@contextmanager
def by_python() -> Iterator[None]:
    """Has Python make the calls inside, in all threads, on each device that was asked: to compare the two."""
    chosen = dict(_calls)
    _calls.update(dict.fromkeys(chosen))
    try:
        yield
    finally:
        _calls.update(chosen)


def _why_python_on(device: torch.device) -> str | None:
    device = torch.device("cuda", torch.cuda.current_device()) if device.index is None else device
    if _decide(device) is not None:
        return None
    if not cuda_seeds.known_on_host(device):
        return "the host does not know the seeds of this device"
    return "native ones differ on this device"


def _decide(device: torch.device) -> Calls | None:
    if torch.cuda.is_current_stream_capturing():
        return None  # the comparison below cannot be captured
    with _deciding:
        if device.index not in _calls:
            _calls[device.index] = None  # Python calls while the two are compared, and where they differ
            if _why_python() is None and cuda_seeds.known_on_host(device):
                native_calls = loaded_calls()
                if same_as_python(device, native_calls.packed_dropout):
                    _calls[device.index] = native_calls
    return _calls[device.index]


def is_loaded() -> bool:
    """Whether the library is in this process."""
    return hasattr(torch.ops.pmexp, "plain_dropout")


def loaded_calls() -> Calls:
    """The operators of the library, which is loaded."""
    ops = torch.ops.pmexp
    return Calls(ops.plain_dropout.default, ops.plain_dropout_and_bits.default, ops.apply_plain_mask.default)


@cache
def _why_python() -> str | None:
    """Returns why there are no native calls here, None where there are. Builds and loads the library."""
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "python")
    if choice not in _CHOICES:
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}={choice} is unknown; choose one of {', '.join(_CHOICES)}")
    if choice == "python":
        return f"{ENVIRONMENT_VARIABLE}=python"
    reason = _why_not_loaded()
    if reason is not None and choice == "native":
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}=native cannot be had: {reason}")
    return reason


def _why_not_loaded() -> str | None:
    if not torch.cuda.is_available():
        return "no CUDA device"
    if not cuda_backend.has_kernels() or torch.version.hip:
        return "no kernels of Triton for CUDA"
    try:
        if not is_loaded():  # loading another copy would end the process
            torch.ops.load_library(library())
    except NotBuilt as error:
        return str(error)
    except (OSError, RuntimeError) as error:
        return f"not loaded: {str(error).splitlines()[0]}"
    from pmexp.packed_dropout import triton_launch  # it imports Triton, which takes a second

    cuda_rng.take_offset = torch.ops.pmexp.take_offset.default  # both draw from one generator
    triton_launch.forget()  # so that Triton launches each kernel once more, which registers it
    return None
