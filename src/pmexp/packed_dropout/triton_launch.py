"""Launches of Triton kernels that cost the host little.

kernel[grid](...) works out at each call what the kernel is specialised for, in more Python than a small mask
is worth. It returns the compiled kernel, which can be launched by itself: compiled[grid](...), for any
arguments of that specialisation. So the first launch of a kind goes through Triton and its compiled kernel is
kept for the next. What makes a kind is Triton's own rule (a test compares the two): dtype and divisibility by
16 of each pointer, divisibility by 16 of each integer, and the compile-time constants. Integers beyond 32
bits, and 0 and 1, which Triton compiles in, always go through Triton, as does every launch on ROCm, which
specialises for more.
"""

from typing import Any

import torch
from triton.compiler import CompiledKernel

from pmexp.packed_dropout.native import kernels

_FREE, _SIZE, _CONSTANT = range(3)  # what Triton makes of a parameter that is not a pointer
_parameters: dict[int, tuple[int, ...]] = {}  # by kernel, of which there are a few, that live as long as this
_compiled: dict[tuple[Any, ...], CompiledKernel] = {}


def launch(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
    """kernel[(programs,)](*arguments, **options) on the device of the first argument, a tensor.

    options: those that Triton compiles with; for one kernel always the same.
    """
    device = arguments[0].get_device()
    if device < 0:  # an interpreted kernel
        kernel[(programs,)](*arguments, **options)
    elif device != torch.cuda.current_device():
        with torch.cuda.device(device):
            _launch(device, kernel, programs, arguments, options)
    else:
        _launch(device, kernel, programs, arguments, options)


def _launch(device: int, kernel: Any, programs: int, arguments: tuple[Any, ...], options: Any) -> None:
    kind, values = kind_and_values(device, kernel, arguments)
    compiled = _compiled.get(kind) if kind else None
    if compiled is not None:
        compiled[(programs, 1, 1)](*values, stream=torch._C._cuda_getCurrentRawStream(device))
        return
    compiled = kernel[(programs,)](*arguments, **options)
    if kind and isinstance(compiled, CompiledKernel):
        _compiled[kind] = compiled
        kernels.offer(kernel, arguments, compiled)


def forget() -> None:
    """Has every kernel launched by Triton once more."""
    _compiled.clear()


def kind_and_values(
    device: int, kernel: Any, arguments: tuple[Any, ...]
) -> tuple[tuple[Any, ...] | None, list[Any]]:
    """What a kernel that these arguments compile may be launched with again, and them, tensors as addresses.

    The kind is None where only Triton itself may launch.
    """
    name = id(kernel)
    kind: list[Any] = [name, device]
    values: list[Any] = []
    for argument, parameter in zip(arguments, _parameters.get(name) or _added(kernel), strict=True):
        if argument is None or parameter == _CONSTANT:
            kind.append(argument)
        elif type(argument) is not int:  # but a tensor
            if argument.get_device() != device:
                return None, []  # Triton says what is wrong with it
            kind.append(argument.dtype)
            argument = argument.data_ptr()
            kind.append(argument % 16 == 0)
        elif parameter == _SIZE:
            if not 1 < argument < 2**31:
                return None, []
            kind.append(argument % 16 == 0)
        values.append(argument)
    return None if torch.version.hip else tuple(kind), values


def _added(kernel: Any) -> tuple[int, ...]:
    """Notes down the parameters of a kernel."""
    _parameters[id(kernel)] = tuple(
        _CONSTANT if one.is_constexpr else _FREE if one.do_not_specialize and one.annotation_type else _SIZE
        for one in kernel.params
    )
    return _parameters[id(kernel)]
