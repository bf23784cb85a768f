"""Drops a plain tensor in one call of torch's dispatcher, forward and backward in C++.

By Python's calls a dropout costs the host two to five times what nn.Dropout costs it, which a small mask does
not earn back. calls.cpp does the same with the same kernels, seeds and bits. Whatever is not plain goes by
Python all the same: see `calls_for`.

`PMEXP_CPU_CALLS` and `PMEXP_CUDA_CALLS` choose, once for a process and kind of device:

    auto    native calls where the library can be had, else Python's (default)
    python  Python's calls
    native  native calls, or an error where there is no library

The library is built, which takes half a minute, by whoever asks what serves a device (`calls`), as each run
that drops by it does before its first step. A dropout for which nobody has asked waits for no compiler: by
`auto` it takes the library that is there, and else Python's calls until the process ends.

The first use on a device compares the two (comparison.py). Where they differ or native ones fail, Python's
are used.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from pmexp.packed_dropout import cuda_backend, cuda_rng, cuda_seeds
from pmexp.packed_dropout.native import build
from pmexp.packed_dropout.native.build import NotBuilt
from pmexp.packed_dropout.native.comparison import same_as_python
from pmexp.packed_dropout.transforms import is_rebuilding

ENVIRONMENT_VARIABLES = {"cpu": "PMEXP_CPU_CALLS", "cuda": "PMEXP_CUDA_CALLS"}
_CHOICES = ("auto", "native", "python")
_PLAIN = (Tensor, nn.Parameter)
_CPU = -1  # as Tensor.get_device() says
# Looked up once: to ask for each of them by its modules takes as long as its answer.
_transforms_active = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state
_hooks_of_saved_tensors = torch._C._autograd._top_saved_tensors_default_hooks
_autograd: Any = torch._C._autograd
_hooks_are_allowed = _autograd._saved_tensors_hooks_is_enabled

_log = logging.getLogger(__name__)


class Calls(NamedTuple):
    """Holds the operators of the library.

    The two that draw return None, with nothing drawn, for what is not plain after all: nested, a dual number,
    of another dtype, without a mask to draw; on CUDA not contiguous, or to be captured into a graph.
    """

    packed_dropout: Any  # takes (x, p, bits, cache_unpacked): packed_dropout() by rng="philox"
    dropout_and_bits: Any  # takes the same, and returns the packed mask as well
    apply_mask: Any  # takes (x, packed, p, bits): x * keep / (1 - p) for any x


_calls: dict[int, Calls | None] = {}  # keyed by CUDA device, or _CPU
_reasons: dict[str, str | None] = {}  # why Python has to call, None where it has not, by the kind of device
_deciding = RLock()


def calls_for(x: Tensor) -> Calls | None:
    """Returns the native calls for a CPU or CUDA tensor, or None where Python has to make them.

    Python has to while anything traces or transforms, and for subclasses.
    """
    if (
        torch.compiler.is_compiling()
        or type(x) not in _PLAIN
        or not (x.is_cpu or x.is_cuda)
        or forward_ad._current_level >= 0
        or _transforms_active()
        or _dispatch_modes()
        or _tracing_state()
        or (_hooks_of_saved_tensors(False) and is_rebuilding())  # which asks a dropout's node for its bits
    ):
        return None
    place = x.get_device()
    return _calls[place] if place in _calls else _decide(x.device)


def serve_any_device() -> bool:
    """Whether native calls serve a device of those that were decided so far."""
    return any(_calls.values())


def calls(device: torch.device) -> str:
    """Who calls the kernels on a device, in words: "native calls" or "calls by Python: <why>".

    It builds the library where none is there. Raises RuntimeError for an unknown choice, and where native
    calls are asked for and cannot be had.
    """
    with _deciding:
        reason = _why_python(device.type, may_build=True) or _why_python_on(device)
    return "native calls" if reason is None else f"calls by Python: {reason}"


def calls_so_far(device: torch.device) -> str | None:
    """What `calls` says, where a dropout has run on such a device or `calls` was asked; None elsewhere."""
    return calls(device) if device.type in _reasons else None


def choose(kind: str, choice: str) -> None:
    """Has this process decide anew for a kind of device, by `choice` in place of the environment's."""
    os.environ[ENVIRONMENT_VARIABLES[kind]] = choice
    _reasons.pop(kind, None)
    for place in [place for place in _calls if (place == _CPU) == (kind == "cpu")]:
        _set_calls({place: None})
        del _calls[place]


@contextmanager
def by_python() -> Iterator[None]:
    """Has Python make the calls inside, in all threads, on each device that was asked: to compare the two."""
    chosen = dict(_calls)
    _set_calls(dict.fromkeys((_CPU, *chosen)))
    try:
        yield
    finally:
        _calls.clear()
        _set_calls(chosen)


def _why_python_on(device: torch.device) -> str | None:
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if _decide(device) is not None:
        return None
    if device.type == "cuda" and not cuda_seeds.known_on_host(device):
        return "the host does not know the seeds of this device"
    return "native ones differ or fail on this device"


def _decide(device: torch.device) -> Calls | None:
    on_cpu = device.type == "cpu"
    if not on_cpu and torch.cuda.is_current_stream_capturing():
        return None  # the comparison below cannot be captured
    if not _hooks_are_allowed():  # nor be made inside of a transform
        return None
    place = _CPU if on_cpu else device.index
    with _deciding:
        if place not in _calls:
            _calls[place] = None  # Python calls while the two are compared, and where they differ
            if _why_python(device.type, may_build=False) is None and (
                on_cpu or cuda_seeds.known_on_host(device)
            ):
                native_calls = loaded_calls()
                if _serve(device, native_calls):
                    _set_calls({place: native_calls})
    return _calls[place]


def _serve(device: torch.device, native_calls: Calls) -> bool:
    """Whether native calls do on a device what Python's do."""
    try:
        return same_as_python(device, native_calls.packed_dropout)
    except RuntimeError as error:
        _log.warning("packed dropout: native calls fail on %s: %s", device, str(error).splitlines()[0])
        return False


def _set_calls(calls: dict[int, Calls | None]) -> None:
    """Says who calls on these devices, to Python here and to the routes of the library."""
    _calls.update(calls)
    if is_loaded():
        for place, native_calls in calls.items():
            torch.ops.pmexp.serve_routes(place, native_calls is not None)


def is_loaded() -> bool:
    """Whether the library is in this process."""
    return hasattr(torch.ops.pmexp, "plain_dropout")


def loaded_calls() -> Calls:
    """The operators of the library, which is loaded."""
    ops = torch.ops.pmexp
    # What an operator calls in its turn, without the call of Python's around it.
    draw, draw_with_bits, apply = ops.plain_dropout, ops.plain_dropout_and_bits, ops.apply_plain_mask
    return Calls(draw.default._op, draw_with_bits.default._op, apply.default._op)


def _why_python(kind: str, may_build: bool) -> str | None:
    """Returns why there are no native calls here, None where there are. Loads the library."""
    if kind not in _reasons:
        variable = ENVIRONMENT_VARIABLES[kind]
        choice = os.environ.get(variable, "auto")
        if choice not in _CHOICES:
            raise RuntimeError(f"{variable}={choice} is unknown; choose one of {', '.join(_CHOICES)}")
        reason: str | None = f"{variable}=python"
        if choice != "python":
            reason = _why_no_kernels(kind) or _why_no_library(may_build or choice == "native")
        if reason is None:
            _connect(kind)
        elif choice == "native":
            raise RuntimeError(f"{variable}=native cannot be had: {reason}")
        _reasons[kind] = reason
    return _reasons[kind]


def _why_no_kernels(kind: str) -> str | None:
    from pmexp.packed_dropout import ops  # it asks this package for native calls

    if kind == "cpu":
        return "the torch reference runs" if ops.cpu_core() is None else None
    if not torch.cuda.is_available():
        return "no CUDA device"
    if not cuda_backend.has_kernels() or torch.version.hip:
        return "no kernels of Triton for CUDA"
    return None


def _why_no_library(may_build: bool) -> str | None:
    if not may_build and not is_loaded() and not build.is_built() and not build.why_not():
        _log.warning(
            "packed dropout: no library of native calls is there for torch %s, and Python's calls take some "
            "20 us more each; python -m pmexp.packed_dropout builds it once, in half a minute",
            torch.__version__,
        )
        return "no library was there at the first dropout"
    try:
        if not is_loaded():  # loading another copy would end the process
            torch.ops.load_library(build.library())
    except NotBuilt as error:
        return str(error)
    except (OSError, RuntimeError) as error:
        return f"not loaded: {str(error).splitlines()[0]}"
    return None


def _connect(kind: str) -> None:
    """Hands the library what it calls on this kind of device."""
    from pmexp.packed_dropout import ops  # it asks this package for native calls

    if kind == "cuda":
        from pmexp.packed_dropout import triton_launch  # it imports Triton, which takes a second

        cuda_rng.take_offset = torch.ops.pmexp.take_offset.default  # both draw from one generator
        triton_launch.forget()  # so that Triton launches each kernel once more, which registers it
    elif (core := ops.cpu_core()) is not None:
        torch.ops.pmexp.use_core(*core.entry_points())
