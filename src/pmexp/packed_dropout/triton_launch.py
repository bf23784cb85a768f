"""Launches Triton kernels at little cost to the host.

kernel[grid](...) works out at each call what the kernel is specialised for, in more Python than a small mask
is worth. It returns the compiled kernel, which can be launched by itself for any arguments of that
specialisation. So the first launch of a kind goes through Triton, and its compiled kernel is kept for the
next. What makes a kind is Triton's own rule (a test compares the two): dtype and divisibility by 16 of each
pointer, divisibility by 16 of each integer, and the compile-time constants. Integers beyond 32 bits, and 0
and 1, which Triton compiles in, always go through Triton, as does every launch on ROCm, which specialises for
more.

Parameters of a kernel come in this order: pointers, integers, compile-time constants.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel

from pmexp.packed_dropout.native import kernels


class _Places(NamedTuple):
    """Says at which places among the arguments of a kernel its pointers, integers and constants are."""

    integers: int  # the place of the first integer; before it are pointers
    sizes: tuple[int, ...]  # the places of the integers that Triton specialises for
    constants: int  # the place of the first constant


_places: dict[int, _Places] = {}  # keyed by the id of a kernel; kernels live as long as the process
_compiled: dict[tuple[Any, ...], CompiledKernel] = {}


def launch(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
    """Runs kernel[(programs,)](*arguments, **options) on the device of the first argument, a tensor.

    options: those that Triton compiles with; for one kernel always the same.
    """
    device = arguments[0].get_device()
    if device < 0:  # the kernel is interpreted
        kernel[(programs,)](*arguments, **options)
    elif device != torch._C._cuda_getDevice():
        with torch.cuda.device(device):
            _launch(device, kernel, programs, arguments, options)
    else:
        _launch(device, kernel, programs, arguments, options)


def _launch(device: int, kernel: Any, programs: int, arguments: tuple[Any, ...], options: Any) -> None:
    kind, values = kind_and_values(device, kernel, arguments)
    kind = (kind, *options.values()) if kind else None
    compiled = _compiled.get(kind) if kind else None
    if compiled is None:
        compiled = kernel[(programs,)](*arguments, **options)
        if kind and isinstance(compiled, CompiledKernel):
            _compiled[kind] = compiled
            kernels.offer(kernel, arguments, compiled)
        return
    stream = torch._C._cuda_getCurrentRawStream(device)
    if _is_watched():
        compiled[(programs, 1, 1)](*values, stream=stream)
    else:  # the same launch, without looking for hooks and gathering what they are told
        function, metadata = compiled.function, compiled.packed_metadata
        compiled.run(programs, 1, 1, stream, function, metadata, None, None, None, *values)


def _is_watched() -> bool:
    """Whether a profiler asked Triton to be called at each launch."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    # A hook is either a chain of hooks or one alone.
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def forget() -> None:
    """Forgets the compiled kernels, so that Triton launches each of them once more."""
    _compiled.clear()


def kind_and_values(
    device: int, kernel: Any, arguments: tuple[Any, ...]
) -> tuple[tuple[Any, ...] | None, list[Any]]:
    """The kind of arguments that a compiled kernel serves again, and their values, tensors as addresses.

    The kind is None where only Triton itself may launch.
    """
    name = id(kernel)
    integers, sizes, constants = _places.get(name) or _note_places(kernel, arguments)
    kind: list[Any] = [name, device, arguments[constants:]]
    values = list(arguments)
    for place in range(integers):
        tensor = values[place]
        if tensor is None:
            kind.append(None)
            continue
        if tensor.get_device() != device:
            return None, []  # Triton itself says what is wrong
        values[place] = address = tensor.data_ptr()
        kind += tensor.dtype, address % 16 == 0
    for place in sizes:
        size = values[place]
        if not 1 < size < 2**31:
            return None, []
        kind.append(size % 16 == 0)
    return None if torch.version.hip else tuple(kind), values


def _note_places(kernel: Any, arguments: tuple[Any, ...]) -> _Places:
    """Keeps and returns the places of a kernel's arguments, by those of its first launch."""
    parameters = kernel.params
    constants = sum(not parameter.is_constexpr for parameter in parameters)
    integers = next(i for i, arg in enumerate(arguments) if not (arg is None or isinstance(arg, Tensor)))
    sizes = tuple(
        place
        for place in range(integers, constants)
        if not (parameters[place].do_not_specialize and parameters[place].annotation_type)
    )
    _places[id(kernel)] = _Places(integers, sizes, constants)
    return _places[id(kernel)]
