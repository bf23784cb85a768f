"""Says, in plain torch, which random word torch's own CUDA dropout gives to which element: slow and obvious.

torch.native_dropout on CUDA (ATen/native/cuda/Dropout.cu) runs `threads` threads. Each has a Philox4x32-10
stream: the key is the generator's seed, the counter (offset / 4 + call, thread) in two 64-bit halves, where
`offset` is the generator's and a call yields four words. The threads go over the elements in rounds, each
thread with a load of `vector` neighbours:

    vector 4, 8  element = (round * threads + thread) * vector + j takes word j % 4 of call
                 round * vector / 4 + j / 4
    vector 2     the same with a call a load: element j takes word j, words 2 and 3 go unused
    vector 1     element = (round * 4 + word) * threads + thread takes that word of call `round`

Tensors that an int32 does not index are counted in 64 bits, by the same mapping, in one launch.

An element is kept where curand_uniform(word) < 1 - p, in the compute dtype. Products and the forward's
factor are those of reference.py, which took them from there.
"""

from functools import lru_cache

import torch
from torch import Tensor

from pmexp.packed_dropout import reference

_BLOCK = 256  # threads in a CUDA block
_WORD = 0xFFFFFFFF


def thread_count(numel: int, multiprocessors: int, threads_per_multiprocessor: int) -> int:
    """Threads that native_dropout launches for `numel` elements, at least one, on such a device."""
    return _BLOCK * min(multiprocessors * (threads_per_multiprocessor // _BLOCK), -(-numel // _BLOCK))


def offset_increment(numel: int, threads: int) -> int:
    """Returns by how much native_dropout advances the generator's offset."""
    return 4 * ((numel - 1) // (4 * threads) + 1)


def vector_size(numel: int, itemsize: int, address: int) -> int:
    """Elements of a contiguous input at `address` that a thread loads at a time: 1, 2, 4 or 8."""
    vector = 16 // itemsize
    while vector > 1 and (address % (vector * itemsize) or numel % vector):
        vector //= 2
    return vector


def native_words(numel: int, state: Tensor, threads: int, vector: int) -> Tensor:
    """The 32-bit word that each of `numel` elements takes, as int64, in row-major order.

    Args:
        state: (2,) int64, the generator's seed (its bits) and offset.
        threads, vector: as thread_count() and vector_size() give them.
    """
    element = torch.arange(numel, device=state.device)
    if vector == 1:
        call, place = element // (4 * threads), element % (4 * threads)
        thread, word = place % threads, place // threads
    else:
        turn, place = element // (threads * vector), element % (threads * vector)
        thread, j = place // vector, place % vector
        call, word = turn * max(vector // 4, 1) + j // 4, j % 4
    seed, offset = state
    counter = offset // 4 + call
    key = (seed & _WORD, (seed >> 32) & _WORD)
    words = reference.philox((counter & _WORD, counter >> 32, thread, torch.zeros_like(thread)), key)
    return torch.stack(words).gather(0, word[None])[0]


def uniform(words: Tensor) -> Tensor:
    """curand_uniform: float32 numbers in (0, 1] for words in int64."""
    return words.to(torch.float32) * 2.0**-32 + 2.0**-33


@lru_cache(maxsize=1024)
def threshold(p: float, dtype: torch.dtype) -> int:
    """How many words are kept: uniform() grows with the word, so these are the words below the threshold."""
    kept_share = reference.rounded(1.0 - p, reference.compute_dtype(dtype))
    low, high = 0, 2**32
    while low < high:
        middle = (low + high) // 2
        if uniform(torch.tensor(middle, device="cpu")).item() < kept_share:
            low = middle + 1
        else:
            high = middle
    return low


def backward_scale(p: float) -> float:
    """The factor of kept elements in native_dropout_backward, before it is rounded to the compute dtype.

    For some p it is a bit off the forward's, reference.kept_scale, which divides by a rounded 1 - p.
    """
    return 1.0 / (1.0 - p)


def native_dropout(
    x: Tensor, state: Tensor, p: float, bits: int, threads: int, vector: int
) -> tuple[Tensor, Tensor]:
    """torch.native_dropout(x, p, True) as on CUDA, with a packed mask. For 0 <= p < 1.

    Args: as native_words(). Elements are counted in row-major order, as torch does where x is contiguous.
    """
    check_native(state, threads, vector)
    words = native_words(x.numel(), state, threads, vector).to(x.device)
    keep = (words < threshold(p, x.dtype)).view(x.shape)
    return reference.apply_mask(x, keep, p), reference.pack_bits(keep, bits)


def check_native(state: Tensor, threads: int, vector: int) -> None:
    """Raises ValueError naming the first argument out of range."""
    if state.dtype is not torch.int64 or state.shape != (2,):
        raise ValueError(f"state: two torch.int64 are needed, {tuple(state.shape)} x {state.dtype} given")
    if threads < 1 or threads % _BLOCK:
        raise ValueError(f"threads: {threads} given; allowed are multiples of {_BLOCK}")
    if vector not in (1, 2, 4, 8):
        raise ValueError(f"vector: {vector} given; allowed are 1, 2, 4 and 8")


OPERATORS = {native_dropout.__name__: native_dropout}
