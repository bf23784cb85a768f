"""The operators on CUDA: Triton kernels and their launchers, nothing else.

`reference.py` and `cuda_mapping.py` say what the bits are and how results are rounded.

A program takes _BLOCKS blocks of 32 neighbouring elements. One lane draws the mask of a block, others load
and store its elements. Between them passes one 32-bit word a block, bit i for element i: it is what is
stored, and the elements go through memory in whole lines. A program in which the tensor does not end checks
no bounds.

Scalars travel as integers: Triton would round a Python float to float32, and a compile-time constant would
compile anew for each p. Element offsets have 64 bits. There are no atomics and there is no autotuning.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmexp.packed_dropout import cuda_mapping, reference
from pmexp.packed_dropout.arguments import (
    check_packed,
    check_seed,
    empty_packed,
    keep_threshold,
    kept_scale,
    with_layout,
)
from pmexp.packed_dropout.triton_launch import launch

name = f"triton {triton.__version__}"

_BLOCKS = 128  # with 4 warps a thread has one block, and a program 4096 elements
_OPTIONS = {
    "num_warps": 4,
    "enable_fp_fusion": False,  # a fused multiply-add would round once where the definition rounds twice
}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_RUNTIME_SCALARS = ["threshold", "scale_bits", "seed", "key", "offset"]


@triton.jit
def _in_rows(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    return tl.arange(0, ROWS)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]


@triton.jit
def _product(word, factor):
    """All 64 bits of a product of 32-bit words, in one instruction: from Triton's operators the compiler
    makes two, one for the upper and one for the lower half."""
    return tl.inline_asm_elementwise(
        "mul.wide.u32 $0, $1, $2;", "=l,r,r", [word, factor], dtype=tl.uint64, is_pure=True, pack=1
    )


@triton.jit
def _philox(seed, c0, c1, c2):
    """The four words of counter (c0, c1, c2, 0), as reference.py says. What depends on scalars alone is
    computed once a program."""
    k0, k1 = seed.to(tl.uint32), (seed.to(tl.uint64) >> 32).to(tl.uint32)
    c3 = c2 & 0
    for _ in tl.static_range(10):
        product0, product1 = _product(c0, 0xD2511F53), _product(c2, 0xCD9E8D57)
        c0, c1 = (product1 >> 32).to(tl.uint32) ^ (c1 ^ k0), product1.to(tl.uint32)
        c2, c3 = (product0 >> 32).to(tl.uint32) ^ (c3 ^ k1), product0.to(tl.uint32)
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _last_kept(threshold):
    """The last word that is kept, as a threshold of 2**32 does not fit a word; a threshold of 0 has none."""
    return (threshold - 1).to(tl.uint32)


@triton.jit
def _bit(word, last, place: tl.constexpr):
    return tl.where(word <= last, 1 << place, 0).to(tl.uint32)


@triton.jit
def _drawn_words(program, seed, threshold, BLOCKS: tl.constexpr):
    """Keep bits of each block by the layout of reference.py. A lane draws whole blocks alone."""
    first = program * (BLOCKS * 8)
    low = first.to(tl.uint32) + tl.arange(0, BLOCKS).to(tl.uint32) * 8
    high = (first >> 32).to(tl.uint32)
    last = _last_kept(threshold)
    words = low & 0
    for i in tl.static_range(8):
        w0, w1, w2, w3 = _philox(seed, low + i, high, high & 0)
        words |= _bit(w0, last, i) | _bit(w1, last, 8 + i) | _bit(w2, last, 16 + i) | _bit(w3, last, 24 + i)
    return tl.where(threshold > 0, words, 0)


@triton.jit
def _native_words(program, seed, offset, threads, threshold, VECTOR: tl.constexpr, BLOCKS: tl.constexpr):
    """Keep bits of each block by the layout of cuda_mapping.py.

    A group is a run of elements that share a Philox call; all threads together take `span` groups a round. As
    `threads` is a multiple of 256, no block lies in two rounds.
    """
    group: tl.constexpr = 4 if VECTOR >= 4 else VECTOR
    calls: tl.constexpr = VECTOR // 4 if VECTOR >= 4 else 1
    groups: tl.constexpr = 32 // group
    span = threads * (4 if VECTOR == 1 else calls)
    first = program * (BLOCKS * groups)
    # 32 bits suffice behind the program's first group; divisions of 64 bits are slow.
    index = (first % span).to(tl.uint32) + tl.arange(0, BLOCKS).to(tl.uint32) * groups
    place = index % span.to(tl.uint32)
    counter = offset // 4 + (first // span + index // span.to(tl.uint32)) * calls
    thread = place % threads.to(tl.uint32) if VECTOR == 1 else place // calls
    last = _last_kept(threshold)
    words = thread & 0
    for i in tl.static_range(groups):
        call = counter + i % calls
        w0, w1, w2, w3 = _philox(seed, call.to(tl.uint32), (call >> 32).to(tl.uint32), thread + i // calls)
        if VECTOR == 1:
            word = place // threads.to(tl.uint32)
            words |= _bit(
                tl.where(word < 2, tl.where(word == 0, w0, w1), tl.where(word == 2, w2, w3)), last, i
            )
        else:
            words |= _bit(w0, last, group * i) | _bit(w1, last, group * i + 1)
            if VECTOR >= 4:
                words |= _bit(w2, last, group * i + 2) | _bit(w3, last, group * i + 3)
    return tl.where(threshold > 0, words, 0)


@triton.jit
def _keep_rows(words):
    """The keep bits as 0 or 1, in rows of eight elements."""
    row = tl.arange(0, words.shape[0] * 4)
    # A gather is needed: the compiler would draw the words again for every lane rather than broadcast them.
    byte = tl.gather(words, row // 4, 0) >> (row % 4 * 8).to(tl.uint32)
    return (byte[:, None] >> tl.arange(0, 8)[None, :].to(tl.uint32)) & 1


@triton.jit
def _spread(words, part: tl.constexpr, BITS: tl.constexpr):
    """32 / BITS keep bits of each word, from the part'th run of so many on, at BITS bits a value."""
    if BITS == 1:
        return words
    spread = words & 0
    for i in tl.static_range(32 // BITS):
        spread |= ((words >> (32 // BITS * part + i)) & 1) << (BITS * i)
    return spread


@triton.jit
def _store_words(program, packed, words, numel, BITS: tl.constexpr, BLOCKS: tl.constexpr):
    """Stores the keep bits at BITS bits a value, zeros behind the last value, and no byte too many."""
    block = program * BLOCKS + tl.arange(0, BLOCKS)
    if (program + 1) * (BLOCKS * 32) <= numel:
        whole = packed.to(tl.pointer_type(tl.uint32), bitcast=True)
        for part in tl.static_range(BITS):
            tl.store(whole + block * BITS + part, _spread(words, part, BITS))
    else:
        left = tl.maximum(numel - block * 32, 0)
        words = tl.where(left < 32, words & ((1 << left.to(tl.uint32)) - 1), words)
        for part in tl.static_range(BITS):
            spread = _spread(words, part, BITS)
            for i in tl.static_range(4):
                byte = (block * BITS + part) * 4 + i
                tl.store(packed + byte, (spread >> (8 * i)).to(tl.uint8), mask=byte * (8 // BITS) < numel)


@triton.jit
def _load_packed(program, packed, numel, BITS: tl.constexpr, ROWS: tl.constexpr):
    """The stored values as 0 or 1, in rows of one byte each."""
    values: tl.constexpr = 8 // BITS
    byte = program * ROWS + tl.arange(0, ROWS)
    stored = tl.load(packed + byte, mask=byte * values < numel, other=0).to(tl.uint32)
    return (stored[:, None] >> (BITS * tl.arange(0, values)[None, :]).to(tl.uint32)) & 1


@triton.jit
def _wide(x):
    if x.dtype == tl.bfloat16:  # one shift or mask a value: Triton's own cast takes two for every second one
        return (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    return x if x.dtype == tl.float64 else x.to(tl.float32)


@triton.jit
def _scaled(x, keep, scale_bits):
    """x * keep * scale, rounded once. A product and no selection: 0 * inf is NaN and 0 * -1 is -0."""
    wide = _wide(x)
    scale = scale_bits.to(tl.float64, bitcast=True).to(wide.dtype)
    return (wide * tl.where(keep != 0, scale, 0.0)).to(x.dtype)


@triton.jit
def _sum(a, b):
    """a + b, rounded to their dtype."""
    return (_wide(a) + _wide(b)).to(a.dtype)


@triton.jit
def _drop_rows(x, bias, columns, residual, y, first, inside, words, scale_bits, WHOLE_ROWS: tl.constexpr):
    """y = dropout(x + bias) + residual from element `first` on, where `inside`; everywhere if it is None."""
    ROWS: tl.constexpr = words.shape[0] * 4
    offset = _in_rows(ROWS, 8)
    value = tl.load(x + first + offset, mask=inside)
    if bias is not None:
        start = (first % columns).to(tl.int32)
        if WHOLE_ROWS:
            row = tl.multiple_of((start + tl.arange(0, ROWS) * 8) % columns, 8)
            column = row[:, None] + tl.arange(0, 8)[None, :]
        else:
            column = (start + offset) % columns
        value = _sum(value, tl.load(bias + column, mask=inside))
    value = _scaled(value, _keep_rows(words), scale_bits)
    if residual is not None:
        value = _sum(value, tl.load(residual + first + offset, mask=inside))
    tl.store(y + first + offset, value, mask=inside)


@triton.jit(do_not_specialize=_RUNTIME_SCALARS)
def _dropout_kernel(
    x, bias, residual, y, packed, seed, key: tl.int64,
    columns, numel, threshold: tl.int64, scale_bits: tl.int64,
    WHOLE_ROWS: tl.constexpr, BITS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """y = dropout(x + bias) + residual; bias, residual and packed may be None.

    The seed is at the address `seed`; where that is None it is `key`.
    WHOLE_ROWS says that `columns` is a multiple of 8, so that no row of eight elements wraps.
    """
    program = tl.program_id(0).to(tl.int64)
    first = program * (BLOCKS * 32)
    if seed is not None:
        key = tl.load(seed)
    words = _drawn_words(program, key, threshold, BLOCKS)
    if first + BLOCKS * 32 <= numel:
        _drop_rows(x, bias, columns, residual, y, first, None, words, scale_bits, WHOLE_ROWS)
    else:
        inside = _in_rows(BLOCKS * 4, 8) < numel - first
        _drop_rows(x, bias, columns, residual, y, first, inside, words, scale_bits, WHOLE_ROWS)
    if packed is not None:
        _store_words(program, packed, words, numel, BITS, BLOCKS)


@triton.jit(do_not_specialize=_RUNTIME_SCALARS)
def _native_dropout_kernel(
    x, y, packed, seed: tl.int64, offset: tl.int64, threads, numel, threshold: tl.int64, scale_bits: tl.int64,
    VECTOR: tl.constexpr, BITS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    first = program * (BLOCKS * 32)
    words = _native_words(program, seed, offset, threads, threshold, VECTOR, BLOCKS)
    if first + BLOCKS * 32 <= numel:
        _drop_rows(x, None, 8, None, y, first, None, words, scale_bits, True)
    else:
        inside = _in_rows(BLOCKS * 4, 8) < numel - first
        _drop_rows(x, None, 8, None, y, first, inside, words, scale_bits, True)
    _store_words(program, packed, words, numel, BITS, BLOCKS)


@triton.jit(do_not_specialize=_RUNTIME_SCALARS)
def _scale_kernel(x, packed, y, numel, scale_bits: tl.int64, BITS: tl.constexpr, ROWS: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    element = program * (ROWS * (8 // BITS)) + _in_rows(ROWS, 8 // BITS)
    value = tl.load(x + element, mask=element < numel)
    keep = _load_packed(program, packed, numel, BITS, ROWS)
    tl.store(y + element, _scaled(value, keep, scale_bits), mask=element < numel)


@triton.jit
def _pack_kernel(mask, packed, numel, BITS: tl.constexpr, ROWS: tl.constexpr):
    values: tl.constexpr = 8 // BITS
    program = tl.program_id(0).to(tl.int64)
    element = program * (ROWS * values) + _in_rows(ROWS, values)
    keep = tl.load(mask + element, mask=element < numel, other=0).to(tl.uint32)
    stored = tl.sum(keep << (BITS * tl.arange(0, values)[None, :]).to(tl.uint32), axis=1)
    byte = program * ROWS + tl.arange(0, ROWS)
    tl.store(packed + byte, stored.to(tl.uint8), mask=byte * values < numel)


@triton.jit
def _unpack_kernel(packed, mask, numel, BITS: tl.constexpr, ROWS: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    element = program * (ROWS * (8 // BITS)) + _in_rows(ROWS, 8 // BITS)
    keep = _load_packed(program, packed, numel, BITS, ROWS)
    tl.store(mask + element, keep.to(tl.uint8), mask=element < numel)


def packed_dropout(x: Tensor, seed: Tensor | int, p: float, bits: int) -> tuple[Tensor, Tensor]:
    """See ops.packed_dropout: y in the dtype and layout of x, and the packed mask. A seed may be a number."""
    packed = empty_packed(x, bits)
    return _dropout(x, None, None, seed, p, packed, bits), packed


def seeded_dropout(x: Tensor, seed: Tensor | int, p: float) -> Tensor:
    """See ops.seeded_dropout: as packed_dropout, without keeping the mask."""
    return _dropout(x, None, None, seed, p, None, 1)


def bias_dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, seed: Tensor, p: float, bits: int
) -> tuple[Tensor, Tensor]:
    """See ops.bias_dropout_add: y in the dtype and layout of x, and the packed mask."""
    reference.check_addends(x, bias, residual)
    packed = empty_packed(x, bits)
    return _dropout(x, bias, residual, seed, p, packed, bits), packed


def _dropout(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    seed: Tensor | int,
    p: float,
    packed: Tensor | None,
    bits: int,
) -> Tensor:
    columns = 8 if bias is None else bias.numel()
    if columns >= 2**31:
        raise ValueError(f"bias: {columns} values given, fewer than 2**31 are allowed on CUDA")
    dense = _dense(x)
    y = torch.empty_like(dense)
    if residual is not None:
        bias, residual = None if bias is None else bias.contiguous(), residual.contiguous()
    address, key = _address_and_key(seed)
    sizes, scalars = (columns, x.numel()), (*_threshold_and_scale(p, x.dtype), columns % 8 == 0, bits)
    _run_blocks(_dropout_kernel, dense, bias, residual, y, packed, address, key, *sizes, *scalars)
    return with_layout(x, dense, y)


@lru_cache(maxsize=1024)
def _threshold_and_scale(p: float, dtype: torch.dtype) -> tuple[int, int]:
    """Returns threshold and scale as the kernels that draw take them."""
    return keep_threshold(p), _bits_of(kept_scale(p, dtype))


def _address_and_key(seed: Tensor | int) -> tuple[Tensor | None, int]:
    """Returns how a kernel takes a seed: by its address, or by value from the host."""
    if isinstance(seed, int):
        return None, seed
    check_seed(seed)
    return (None, int(seed.item())) if seed.is_cpu else (seed, 0)


def native_dropout(
    x: Tensor, state: Tensor, p: float, bits: int, threads: int, vector: int
) -> tuple[Tensor, Tensor]:
    """See cuda_mapping.native_dropout; a `state` on the CPU costs no wait for the device."""
    cuda_mapping.check_native(state, threads, vector)
    dense = _dense(x)
    y, packed = torch.empty_like(dense), empty_packed(x, bits)
    seed, offset = state.tolist()
    threshold, scale = cuda_mapping.threshold(p, x.dtype), kept_scale(p, x.dtype)
    scalars = (seed, offset, threads, x.numel(), threshold, _bits_of(scale), vector)
    _run_blocks(_native_dropout_kernel, dense, y, packed, *scalars, bits)
    return with_layout(x, dense, y), packed


def apply_packed_mask(x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
    """See ops.apply_packed_mask: x * keep / (1 - p) in the dtype and layout of x."""
    return _apply_mask(x, packed, _threshold_and_scale(p, x.dtype)[1], bits)


def scale_packed_mask(x: Tensor, packed: Tensor, scale: float, bits: int) -> Tensor:
    """See ops.scale_packed_mask: x * keep * scale in the dtype and layout of x."""
    return _apply_mask(x, packed, _bits_of(scale), bits)


def _apply_mask(x: Tensor, packed: Tensor, scale_bits: int, bits: int) -> Tensor:
    check_packed(packed, x.numel(), bits)
    dense = _dense(x)
    y = torch.empty_like(dense)
    _run_rows(_scale_kernel, dense, packed.contiguous(), y, x.numel(), scale_bits, bits)
    return with_layout(x, dense, y)


def pack_bits(mask: Tensor, bits: int) -> Tensor:
    """See ops.pack_bits: a Boolean (or 0/1) tensor of any shape to flat uint8."""
    packed = empty_packed(mask, bits)
    _run_rows(_pack_kernel, mask.to(torch.bool).contiguous().view(torch.uint8), packed, mask.numel(), bits)
    return packed


def unpack_bits(packed: Tensor, shape: Sequence[int], bits: int) -> Tensor:
    """See ops.unpack_bits: the Boolean mask of `shape`."""
    mask = packed.new_empty(shape, dtype=torch.bool)
    check_packed(packed, mask.numel(), bits)
    _run_rows(_unpack_kernel, packed.contiguous(), mask.view(torch.uint8), mask.numel(), bits)
    return mask


def _run_blocks(kernel: Any, x: Tensor, *arguments: Any) -> None:
    launch(kernel, -(-x.numel() // (32 * _BLOCKS)), x, *arguments, _BLOCKS, **_OPTIONS)


def _run_rows(kernel: Any, first: Tensor, second: Tensor, *arguments: Any) -> None:
    numel, rows = max(first.numel(), second.numel()), 4 * arguments[-1] * _BLOCKS
    launch(kernel, -(-numel // (32 * _BLOCKS)), first, second, *arguments, rows, **_OPTIONS)


def _dense(x: Tensor) -> Tensor:
    if x.dtype not in _DTYPES:
        raise TypeError(f"packed dropout on CUDA takes {', '.join(map(str, _DTYPES))}, got {x.dtype}")
    return x.contiguous()


def _bits_of(scale: float) -> int:
    """The bits of a double, as the int64 that carries it into a kernel."""
    return int(struct.unpack("<q", struct.pack("<d", scale))[0])
