"""Defines the method's operators as torch.library ops, which torch dispatches by device.

    packed_dropout(x, seed, p, bits)                    -> x * keep / (1 - p), the packed mask
    apply_packed_mask(x, packed, p, bits)               -> x * keep / (1 - p), by the mask in `packed`
    scale_packed_mask(x, packed, scale, bits)           -> x * keep * scale, by the mask in `packed`
    seeded_dropout(x, seed, p)                          -> x * keep / (1 - p), keeping no mask
    bias_dropout_add(x, bias, residual, seed, p, bits)  -> residual + (x + bias) * keep / (1 - p), the mask
    pack_bits(mask, bits), unpack_bits(packed, shape, bits)
    native_dropout(x, state, p, bits, threads, vector)  -> torch's own CUDA dropout, the packed mask

All are pure. They take the seed as a tensor (one int64, on the device of x or the CPU), so they have no
hidden state: checkpointing recomputes the same mask, and two calls of a compiled graph with two seeds are
never merged into one.
`reference.py` and `cuda_mapping.py` say what the bits are.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pmexp.packed_dropout import cpu, cuda_backend, cuda_mapping, native, reference

_library = torch.library.Library("pmexp", "DEF")
_SCHEMAS = (
    "packed_dropout(Tensor x, Tensor seed, float p, int bits) -> (Tensor, Tensor)",
    "apply_packed_mask(Tensor x, Tensor packed, float p, int bits) -> Tensor",
    "seeded_dropout(Tensor x, Tensor seed, float p) -> Tensor",
    "bias_dropout_add(Tensor x, Tensor? bias, Tensor residual, Tensor seed, float p, int bits)"
    " -> (Tensor, Tensor)",
    "pack_bits(Tensor mask, int bits) -> Tensor",
    "unpack_bits(Tensor packed, SymInt[] shape, int bits) -> Tensor",
    "native_dropout(Tensor x, Tensor state, float p, int bits, int threads, int vector) -> (Tensor, Tensor)",
    "scale_packed_mask(Tensor x, Tensor packed, float scale, int bits) -> Tensor",
)
NAMES = [_schema.partition("(")[0] for _schema in _SCHEMAS]
for _schema in _SCHEMAS:
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def backend(device: torch.device | str) -> str:
    """Name of the implementation that runs on `device`, and who calls it.

    It builds the library of native calls where one is to be had and none is there: see native.
    """
    device = torch.device(device)
    called = (
        _cpu_core is not None
        if device.type == "cpu"
        else device.type == "cuda" and cuda_backend.has_kernels()
    )
    return f"{kernels(device)}, {native.calls(device)}" if called else kernels(device)


def kernels(device: torch.device) -> str:
    """Name of the implementation that runs on `device`; it goes into every run's record."""
    if device.type == "cpu" and _cpu_core is not None:
        return _cpu_core.name
    if device.type == "cuda":
        return str(cuda_backend.operators().name)
    missing = device.type == "cpu" and not cpu.available_backends()
    return f"torch reference on {device.type}" + " (the C++ core was not built)" * missing


def _on_cuda(name: str) -> Callable[..., Any]:
    """The operator of the CUDA backend, which is chosen at its first call."""
    return lambda *arguments: getattr(cuda_backend.operators(), name)(*arguments)


for _name, _implementation in (reference.OPERATORS | cuda_mapping.OPERATORS).items():
    torch.library.impl(_library, _name, "CompositeExplicitAutograd")(_implementation)
    torch.library.impl(_library, _name, "CUDA")(_on_cuda(_name))

_cpu_core = cpu.select()
if _cpu_core is not None:
    for _name in reference.OPERATORS:
        torch.library.impl(_library, _name, "CPU")(getattr(_cpu_core, _name))


def cpu_core() -> cpu.Core | None:
    """Returns what runs the operators of CPU tensors; None where that is the torch reference."""
    return _cpu_core


@torch.library.register_fake("pmexp::packed_dropout")
def _packed_dropout_fake(x: Tensor, seed: Tensor, p: float, bits: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _pack_bits_fake(x, bits)


@torch.library.register_fake("pmexp::apply_packed_mask")
def _apply_packed_mask_fake(x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("pmexp::seeded_dropout")
def _seeded_dropout_fake(x: Tensor, seed: Tensor, p: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("pmexp::bias_dropout_add")
def _bias_dropout_add_fake(
    x: Tensor, bias: Tensor | None, residual: Tensor, seed: Tensor, p: float, bits: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _pack_bits_fake(x, bits)


@torch.library.register_fake("pmexp::pack_bits")
def _pack_bits_fake(mask: Tensor, bits: int) -> Tensor:
    return mask.new_empty((reference.packed_bytes(mask.numel(), bits),), dtype=torch.uint8)


@torch.library.register_fake("pmexp::unpack_bits")
def _unpack_bits_fake(packed: Tensor, shape: list[int], bits: int) -> Tensor:
    return packed.new_empty(shape, dtype=torch.bool)


@torch.library.register_fake("pmexp::native_dropout")
def _native_dropout_fake(
    x: Tensor, state: Tensor, p: float, bits: int, threads: int, vector: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _pack_bits_fake(x, bits)


@torch.library.register_fake("pmexp::scale_packed_mask")
def _scale_packed_mask_fake(x: Tensor, packed: Tensor, scale: float, bits: int) -> Tensor:
    return torch.empty_like(x)


packed_dropout = torch.ops.pmexp.packed_dropout.default
apply_packed_mask = torch.ops.pmexp.apply_packed_mask.default


def backend_of_plain(x: Tensor) -> Any | None:
    """operators_for(x) where that is a backend and no forward-mode derivative is asked for, else None."""
    operators = operators_for(x)
    return None if operators is _dispatched or forward_ad._current_level >= 0 else operators


def operators_for(x: Tensor, *others: Tensor | None) -> Any:
    """Returns what has the operators as its attributes, to be called on the inputs.

    It is the backend itself for plain CPU or CUDA tensors, since torch's dispatcher takes 10 us to reach
    Python, and this module for all else and while anything traces.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or not _is_plain(x)
    ):
        return _dispatched
    for tensor in others:
        if tensor is not None and not (_is_plain(tensor) and (tensor.is_cpu or tensor.device == x.device)):
            return _dispatched
    if x.is_cuda:
        return cuda_backend.operators()
    return _cpu_core if _cpu_core is not None and x.is_cpu else _dispatched


def _is_plain(tensor: Tensor) -> bool:
    """Whether its values are what its memory holds.

    They are not in a subclass, in a wrapper of a transform, or where a negation or zero is kept as a flag.
    """
    return (
        type(tensor) is Tensor
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
        and torch._C._has_storage(tensor)
    )


seeded_dropout = torch.ops.pmexp.seeded_dropout.default
bias_dropout_add = torch.ops.pmexp.bias_dropout_add.default
pack_bits = torch.ops.pmexp.pack_bits.default
unpack_bits = torch.ops.pmexp.unpack_bits.default
native_dropout = torch.ops.pmexp.native_dropout.default
scale_packed_mask = torch.ops.pmexp.scale_packed_mask.default
_dispatched = sys.modules[__name__]
