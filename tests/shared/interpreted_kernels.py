"""Small kernels around parts of the real ones, for the interpreter's process alone."""

from unittest import mock

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmexp.packed_dropout import triton_kernels
from pmexp.packed_dropout.triton_kernels import _drawn_words, _native_words, _philox


@triton.jit
def _words_kernel(out, first, seed, threshold: tl.int64, BLOCKS: tl.constexpr):
    words = _drawn_words(tl.program_id(0).to(tl.int64) + first, tl.load(seed), threshold, BLOCKS)
    tl.store(out + tl.arange(0, BLOCKS), words)


@triton.jit
def _native_words_kernel(
    out, first, seed, offset, threads, threshold: tl.int64, VECTOR: tl.constexpr, BLOCKS: tl.constexpr
):
    program = tl.program_id(0).to(tl.int64) + first
    words = _native_words(program, seed, offset, threads, threshold, VECTOR, BLOCKS)
    tl.store(out + tl.arange(0, BLOCKS), words)


@triton.jit
def _philox_kernel(out, counter, seed, COUNT: tl.constexpr):
    lane = tl.arange(0, COUNT)
    c0, c1 = tl.load(counter + lane).to(tl.uint32), tl.load(counter + COUNT + lane).to(tl.uint32)
    scalar = tl.load(counter + 2 * COUNT).to(tl.uint32)
    lanes = tl.load(counter + 2 * COUNT + lane).to(tl.uint32)
    first = _philox(tl.load(seed), c0, scalar, scalar & 0)
    second = _philox(tl.load(seed), c0, c1, lanes)
    for i in tl.static_range(4):
        tl.store(out + i * COUNT + lane, first[i])
        tl.store(out + (4 + i) * COUNT + lane, second[i])


def philox(counter: Tensor, seed: Tensor) -> Tensor:
    """The words of the kernels' own _philox, by 32 bits each: of counters (c0, first c2, 0) and (c0, c1, c2).

    counter: 3 x count, int64, in words of 32 bits. The result has 8 x count.
    """
    out = torch.empty(8, counter.shape[1], dtype=torch.int64)
    _philox_kernel[(1,)](out, counter, seed, counter.shape[1])
    return out


def words_of_program(program: int, seed: Tensor, threshold: int, blocks: int) -> Tensor:
    """Keep bits of the blocks of one program, however far it is."""
    out = torch.empty(blocks, dtype=torch.int32)
    _words_kernel[(1,)](out, program, seed, threshold, blocks)
    return out


def native_words_of_program(
    program: int, seed: int, offset: int, threads: int, threshold: int, vector: int, blocks: int
) -> Tensor:
    """Keep bits of the blocks of one program, by the draw of native_dropout."""
    out = torch.empty(blocks, dtype=torch.int32)
    _native_words_kernel[(1,)](out, program, seed, offset, threads, threshold, vector, blocks)
    return out


def packed_dropout_of_seed_at_address(x: Tensor, seed: Tensor, p: float, bits: int) -> tuple[Tensor, Tensor]:
    """packed_dropout as it runs where x and seed lie on one device."""
    with mock.patch.object(triton_kernels, "_address_and_key", lambda seed: (seed, 0)):
        return triton_kernels.packed_dropout(x, seed, p, bits)
