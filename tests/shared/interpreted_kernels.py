"""Small kernels around parts of the real ones, for the interpreter's process alone."""

from unittest import mock

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmexp.packed_dropout import triton_kernels
from pmexp.packed_dropout.triton_kernels import _drawn_words, _native_words


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
