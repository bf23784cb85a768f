"""Binds the C++ core by ctypes: checks what comes in, allocates what goes out, passes pointers.

ctypes lets go of the GIL during a call, so Python threads run kernels side by side.
"""

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pmexp.packed_dropout import reference
from pmexp.packed_dropout.arguments import (
    check_packed,
    check_seed,
    empty_packed,
    keep_threshold,
    kept_scale,
    with_layout,
)

# Enum DType in core.h has the same numbers.
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


class LineTable(ctypes.Structure):
    """A function in cells of equal width, linear in each, as core.h has it."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("minimum", "q0", "first", "cells_a_unit")),
        *((name, ctypes.c_float) for name in ("smallest_square", "largest_square")),
        ("cells", ctypes.c_int32),
        ("lines", ctypes.c_void_p),
    )


class NormJob(ctypes.Structure):
    """The buffers of LayerNorm's backward from its output, as core.h has them."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grad", "output", "rstd", "grad_input", "weight", "bias")),
        *((name, ctypes.c_int64) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("kept_at", "kept")),
        ("kept_columns", ctypes.c_int64),
    )


_BLOCK = 32  # core.h's kBlock
_NORM_BUFFERS = 3  # core.h's kNormBuffers

_pointer, _int, _double = ctypes.c_void_p, ctypes.c_int, ctypes.c_double
_int64, _uint64 = ctypes.c_int64, ctypes.c_uint64
_SIGNATURES = {  # as core.h declares them
    "pmexp_dropout": (
        *(_int, _int, _pointer, _pointer, _pointer, _int64),
        *(_pointer, _uint64, _double, _int, _int),
    ),
    "pmexp_bias_dropout_add": (
        *(_int, _int, _pointer, _pointer, _int64, _pointer, _pointer, _pointer, _int64),
        *(_pointer, _uint64, _double, _int, _int),
    ),
    "pmexp_scale_by_mask": (_int, _int, _pointer, _pointer, _pointer, _int64, _double, _int, _int),
    "pmexp_gelu_backward": (
        *(_int, _int, _pointer, _pointer, _pointer, _pointer, _int64),
        *(ctypes.POINTER(LineTable), _int),
    ),
    "pmexp_below": (_int, _int, _pointer, _pointer, _int64, _double, _int),
    "pmexp_layer_norm_backward": (_int, _int, ctypes.POINTER(NormJob), _pointer, _int),
    "pmexp_pack": (_int, _pointer, _pointer, _int64, _int, _int),
    "pmexp_unpack": (_int, _pointer, _pointer, _int64, _int, _int),
    "pmexp_use_openmp": (_pointer,),
}


@cache
def _library() -> ctypes.CDLL | None:
    """The shared library; None where the package was installed without a C++ compiler."""
    spec = importlib.util.find_spec("pmexp.packed_dropout.cpu._core")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.pmexp_backend_name.restype = ctypes.c_char_p
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name, None)
        if function is None:
            raise RuntimeError(f"{spec.origin} was built from older sources of pmexp; install pmexp again")
        function.argtypes, function.restype = arguments, None
    library.pmexp_use_openmp(torchs_openmp())
    return library


def torchs_openmp() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that torch runs on; None where it has none (macOS)."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:  # a look-up in a library also searches what that library is linked with
        return ctypes.cast(ctypes.CDLL(str(library)).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def available_backends() -> list[str]:
    """Names of the instruction sets that the core has and this processor runs, best first."""
    library = _library()
    if library is None:
        return []
    names: list[str] = []
    while (name := library.pmexp_backend_name(len(names))) is not None:
        names.append(name.decode())
    return names


def _dtype_code(x: Tensor) -> int:
    code = _DTYPES.get(x.dtype)
    if code is None:
        raise TypeError(f"packed dropout on the CPU takes {', '.join(map(str, _DTYPES))}, got {x.dtype}")
    return code


def _draw_arguments(x: Tensor, seed: Tensor, p: float, bits: int) -> tuple[int, int, float, int, int]:
    """Returns seed, threshold, scale, width and threads as the functions that draw take them."""
    check_seed(seed)
    return seed.data_ptr(), keep_threshold(p), kept_scale(p, x.dtype), bits, torch.get_num_threads()


def _in_whole_blocks(parameter: Tensor | None, columns: int, otherwise: float) -> Tensor:
    """Returns a parameter of `columns` in float32, `otherwise` where it has none up to a whole block."""
    if parameter is not None and columns % _BLOCK == 0:
        return parameter.float().contiguous()
    padded = torch.full((-(-columns // _BLOCK) * _BLOCK,), otherwise, dtype=torch.float32)
    if parameter is not None:
        padded[:columns] = parameter
    return padded


class Core:
    """The CPU ops on one instruction set. Tensors are checked here; C++ trusts what it is given.

    The methods ending in _into write contiguous tensors that the caller owns.
    """

    def __init__(self, backend: str) -> None:
        library = _library()
        assert library is not None, "no backend is available without the library"
        self.name = f"cpu core {backend}"
        self._backend = available_backends().index(backend)
        self._dropout, self._apply_mask = library.pmexp_dropout, library.pmexp_scale_by_mask
        self._bias_dropout_add = library.pmexp_bias_dropout_add
        self._gelu_backward, self._below = library.pmexp_gelu_backward, library.pmexp_below
        self._layer_norm_backward = library.pmexp_layer_norm_backward
        self._pack, self._unpack = library.pmexp_pack, library.pmexp_unpack

    def entry_points(self) -> tuple[int, int, int]:
        """Number of the instruction set, and the addresses of pmexp_dropout and pmexp_scale_by_mask."""
        dropout, apply_mask = (
            ctypes.cast(each, ctypes.c_void_p).value or 0 for each in (self._dropout, self._apply_mask)
        )
        return self._backend, dropout, apply_mask

    def packed_dropout(self, x: Tensor, seed: Tensor, p: float, bits: int) -> tuple[Tensor, Tensor]:
        """See ops.packed_dropout: y in the dtype and layout of x, and the packed mask."""
        dense = x.contiguous()
        y = torch.empty_like(dense)
        packed = empty_packed(x, bits)
        self.dropout_into(y, packed, dense, seed, p, bits)
        return with_layout(x, dense, y), packed

    def seeded_dropout(self, x: Tensor, seed: Tensor, p: float) -> Tensor:
        """See ops.seeded_dropout: as packed_dropout, without keeping the mask."""
        dense = x.contiguous()
        y = torch.empty_like(dense)
        self.dropout_into(y, None, dense, seed, p)
        return with_layout(x, dense, y)

    def bias_dropout_add(
        self, x: Tensor, bias: Tensor | None, residual: Tensor, seed: Tensor, p: float, bits: int
    ) -> tuple[Tensor, Tensor]:
        """See ops.bias_dropout_add: y in the dtype and layout of x, and the packed mask."""
        dense = x.contiguous()
        y = torch.empty_like(dense)
        packed = empty_packed(x, bits)
        dense_bias = None if bias is None else bias.contiguous()
        self.bias_dropout_add_into(y, packed, dense, dense_bias, residual.contiguous(), seed, p, bits)
        return with_layout(x, dense, y), packed

    def apply_packed_mask(self, x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
        """See ops.apply_packed_mask: x * keep / (1 - p) in the dtype and layout of x."""
        return self.scale_packed_mask(x, packed, kept_scale(p, x.dtype), bits)

    def scale_packed_mask(self, x: Tensor, packed: Tensor, scale: float, bits: int) -> Tensor:
        """See ops.scale_packed_mask: x * keep * scale in the dtype and layout of x."""
        dense = x.contiguous()
        y = torch.empty_like(dense)
        self.scale_mask_into(y, packed.contiguous(), dense, scale, bits)
        return with_layout(x, dense, y)

    def gelu_backward(self, grad: Tensor, output: Tensor, falling: Tensor, curve: LineTable) -> Tensor:
        """Returns grad * GELU' of grad's shape and dtype, by GELU's output and a bit an element.

        Raises TypeError for float64, and for two tensors of different dtypes.
        """
        if grad.dtype != output.dtype or grad.dtype == torch.float64:
            raise TypeError(f"gelu_backward takes two tensors of one dtype below float64, got {grad.dtype}")
        check_packed(falling, output.numel(), 1)
        x, y, bits = grad.contiguous(), output.contiguous(), falling.contiguous()
        out = torch.empty_like(x)
        pointers = (x.data_ptr(), y.data_ptr(), bits.data_ptr(), out.data_ptr())
        arguments = (x.numel(), ctypes.byref(curve), torch.get_num_threads())
        self._gelu_backward(self._backend, _dtype_code(x), *pointers, *arguments)
        return out

    def below(self, x: Tensor, limit: float) -> Tensor:
        """Returns one bit an element, set where x is below `limit`: uint8, (ceil(numel / 8),).

        Raises TypeError for float64.
        """
        if x.dtype == torch.float64:
            raise TypeError(f"below takes a dtype below float64, got {x.dtype}")
        dense, packed = x.contiguous(), empty_packed(x, 1)
        arguments = (x.numel(), limit, torch.get_num_threads())
        self._below(self._backend, _dtype_code(x), dense.data_ptr(), packed.data_ptr(), *arguments)
        return packed

    def layer_norm_backward(
        self,
        grad: Tensor,
        output: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        kept_at: Tensor | None,
        kept: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the gradients of LayerNorm's input, like `grad`, and of weight and bias, float32
        (2, columns).

        Args:
            grad, output: (rows, columns), of one dtype below float64.
            rstd: (rows,), 1/std of each row.
            weight, bias: (columns,), any dtype; None for all 1 and all 0.
            kept_at: (n,) int64, the columns whose centred input is in `kept`, (rows, n); None for none.

        Raises TypeError for other dtypes.
        """
        if grad.dtype != output.dtype or grad.dtype == torch.float64:
            raise TypeError(f"layer_norm_backward takes one dtype below float64, got {grad.dtype}")
        (rows, columns), threads = grad.shape, torch.get_num_threads()
        scale, shift = _in_whole_blocks(weight, columns, 1.0), _in_whole_blocks(bias, columns, 0.0)
        x, y, stds = grad.contiguous(), output.contiguous(), rstd.float().contiguous()
        out, scratch = torch.empty_like(x), scale.new_empty((threads, _NORM_BUFFERS, scale.numel()))
        job = NormJob(*(tensor.data_ptr() for tensor in (x, y, stds, out, scale, shift)))
        job.rows, job.columns = rows, columns
        if kept_at is not None and kept is not None:
            centred = kept.to(y.dtype).contiguous()
            job.kept_at, job.kept, job.kept_columns = kept_at.data_ptr(), centred.data_ptr(), kept_at.numel()
        self._layer_norm_backward(
            self._backend, _dtype_code(x), ctypes.byref(job), scratch.data_ptr(), threads
        )
        return out, scratch[0, :2, :columns]

    def pack_bits(self, mask: Tensor, bits: int) -> Tensor:
        """See ops.pack_bits: a Boolean (or 0/1) tensor of any shape to flat uint8."""
        packed = empty_packed(mask, bits)
        of_bytes = mask if mask.element_size() == 1 and not mask.is_floating_point() else mask.to(torch.bool)
        self.pack_bits_into(packed, of_bytes.contiguous(), bits)
        return packed

    def unpack_bits(self, packed: Tensor, shape: Sequence[int], bits: int) -> Tensor:
        """See ops.unpack_bits: the Boolean mask of `shape`."""
        mask = packed.new_empty(shape, dtype=torch.bool)
        self.unpack_bits_into(mask, packed.contiguous(), bits)
        return mask

    def dropout_into(
        self, y: Tensor, packed: Tensor | None, x: Tensor, seed: Tensor, p: float, bits: int = 1
    ) -> None:
        dtype, drawn = _dtype_code(x), _draw_arguments(x, seed, p, bits)
        pointer = None if packed is None else packed.data_ptr()
        self._dropout(self._backend, dtype, x.data_ptr(), y.data_ptr(), pointer, x.numel(), *drawn)

    def bias_dropout_add_into(
        self,
        y: Tensor,
        packed: Tensor,
        x: Tensor,
        bias: Tensor | None,
        residual: Tensor,
        seed: Tensor,
        p: float,
        bits: int,
    ) -> None:
        dtype, drawn = _dtype_code(x), _draw_arguments(x, seed, p, bits)
        reference.check_addends(x, bias, residual)
        pointer, columns = (None, 0) if bias is None else (bias.data_ptr(), bias.numel())
        buffers = (x.data_ptr(), pointer, columns, residual.data_ptr(), y.data_ptr(), packed.data_ptr())
        self._bias_dropout_add(self._backend, dtype, *buffers, x.numel(), *drawn)

    def scale_mask_into(self, y: Tensor, packed: Tensor, x: Tensor, scale: float, bits: int) -> None:
        dtype = _dtype_code(x)
        check_packed(packed, x.numel(), bits)
        arguments = (x.numel(), scale, bits, torch.get_num_threads())
        self._apply_mask(self._backend, dtype, x.data_ptr(), y.data_ptr(), packed.data_ptr(), *arguments)

    def pack_bits_into(self, packed: Tensor, mask: Tensor, bits: int) -> None:
        arguments = (mask.numel(), bits, torch.get_num_threads())
        self._pack(self._backend, mask.data_ptr(), packed.data_ptr(), *arguments)

    def unpack_bits_into(self, mask: Tensor, packed: Tensor, bits: int) -> None:
        check_packed(packed, mask.numel(), bits)
        arguments = (mask.numel(), bits, torch.get_num_threads())
        self._unpack(self._backend, packed.data_ptr(), mask.data_ptr(), *arguments)
