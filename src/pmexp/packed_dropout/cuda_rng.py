"""Draws for rng="torch" on CUDA the masks of nn.Dropout from the same generator state, without a byte mask.

nn.Dropout runs torch.native_dropout there. Its draw is reproduced in one pass that packs (see cuda_mapping).
Where that cannot be, native_dropout itself runs and its mask is packed: the same numbers at the cost of a
byte mask for a moment. torch_rng_record() tells how often which of the two happened, and why.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any, cast

import torch
from torch import Tensor, nn

from pmexp.packed_dropout import cuda_backend, cuda_mapping, ops, partitioning

_record: Counter[str] = Counter()
_reserving = RLock()


def torch_rng_record() -> dict[str, int]:
    """Returns how the masks of rng="torch" on CUDA came about in this process, and how many.

    Keys are "reproduced", and "packed native_dropout: <reason>". A place in a compiled graph counts once,
    when it is compiled. "seed by torch.randint: <reason>", once for a device, says that rng="philox" launches
    a kernel for each seed there.
    """
    return dict(_record)


def native_dropout_packed(x: Tensor, p: float, bits: int) -> tuple[Tensor, Tensor]:
    """torch.native_dropout(x, p, True) with its mask packed at `bits` bits; for 0 < p < 1 and a CUDA tensor.

    Output, mask and the generator's state afterwards are those of native_dropout, bit for bit.
    """
    reason = why_not_reproduced(x)
    if reason is not None:
        count(f"packed native_dropout: {reason}")
        y, keep = torch.native_dropout(x, p, True)
        return y, partitioning.pack_drawn(keep, bits)
    count("reproduced")
    _load_packing(x.device, x.numel() % 16 == 0, bits)
    return _reproduced(x, p, bits)


def why_not_reproduced(x: Tensor) -> str | None:
    """Why native_dropout's draw cannot be reproduced for x; None where it can."""
    if torch.compiler.is_compiling():
        return "torch.compile"
    if type(x) not in (Tensor, nn.Parameter):
        return type(x).__name__
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func"
    modes = range(torch._C._len_torch_dispatch_stack())
    if not all(getattr(torch._C._get_dispatch_stack_at(place), "only_looks", False) for place in modes):
        return "a torch dispatch mode"
    if not cuda_backend.has_kernels():
        return str(cuda_backend.operators().name)
    if torch.cuda.is_current_stream_capturing():
        return "CUDA graph capture"
    if not x.is_contiguous():
        return "input not contiguous"
    if not _mapping_holds(x.device, x.dtype):
        return f"torch {torch.__version__} draws otherwise"
    return None


def reserve(device: torch.device, increment: int) -> Tensor:
    """Returns what advance() does as (2,) int64 on the CPU, where reading it waits for no device."""
    seed, offset = advance(device, increment)  # the highest of the seed's 64 bits is int64's sign
    return torch.tensor([seed - (seed >> 63 << 64), offset], dtype=torch.int64, device="cpu")


def advance(device: torch.device, increment: int) -> tuple[int, int]:
    """Advances the offset of the device's default generator, a multiple of 4, by `increment`.

    Returns the seed, of 64 bits without sign, and the offset that it had.
    """
    with _reserving:
        offset = take_offset(device, increment)
    return default_generator(device).initial_seed(), offset


def _take_offset(device: torch.device, increment: int) -> int:
    generator = default_generator(device)
    offset: int = generator.get_offset()
    generator.set_offset(offset + increment)
    return offset


# Advances the offset and returns its old value. Native calls put one here that takes the generator's lock.
take_offset: Callable[[torch.device, int], int] = _take_offset


def _reproduced(x: Tensor, p: float, bits: int) -> tuple[Tensor, Tensor]:
    threads = cuda_mapping.thread_count(x.numel(), *_multiprocessors(x.device))
    vector = cuda_mapping.vector_size(x.numel(), x.element_size(), x.data_ptr())
    state = reserve(x.device, cuda_mapping.offset_increment(x.numel(), threads))
    drawn = cuda_backend.operators().native_dropout(x, state, p, bits, threads, vector)
    return cast(tuple[Tensor, Tensor], drawn)


@cache
def _mapping_holds(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch draws as cuda_mapping.py says: the mapping is no interface of torch and has changed.

    It is tried on one tensor in whole vectors and one of odd size, each a little more than the threads take
    in one round. native_dropout draws from the default generator alone, which is left as it was: torch's own
    operators must not draw in another thread meanwhile.
    """
    most_threads = cuda_mapping.thread_count(2**40, *_multiprocessors(device))
    generator = default_generator(device)
    with _reserving, _left_as_it_was(generator):
        for numel in (8 * most_threads + 8, 4 * most_threads + 1):
            x = torch.ones(numel, dtype=dtype, device=device)
            start = generator.get_offset()
            y, _ = torch.native_dropout(x, 0.3, True)
            after = generator.get_offset()
            generator.set_offset(start)
            reproduced, _ = _reproduced(x, 0.3, 1)
            if generator.get_offset() != after or not torch.equal(reproduced, y):
                return False
    return True


@contextmanager
def _left_as_it_was(generator: torch.Generator) -> Iterator[None]:
    before = generator.get_offset()
    try:
        yield
    finally:
        generator.set_offset(before)


@cache
def _load_packing(device: torch.device, multiple_of_16: bool, bits: int) -> None:
    """Packs a throwaway mask, which loads the kernel: a CUDA graph capture may need it and cannot load it.

    Triton compiles one for sizes that are multiples of 16, and one for others.
    """
    ops.pack_bits(torch.zeros(16 if multiple_of_16 else 17, dtype=torch.bool, device=device), bits)


def count(event: str) -> None:
    """Counts `event` once more in the record."""
    _record[event] += 1


# Dynamo calls it while tracing, as after assume_constant_result(), which would import all of dynamo.
count._dynamo_marked_constant = True  # type: ignore[attr-defined]


def default_generator(device: torch.device) -> torch.Generator:
    """Returns the generator that torch's own operators draw from; `device` has an index."""
    generator: torch.Generator = torch.cuda.default_generators[device.index]
    return generator


def _multiprocessors(device: torch.device) -> tuple[int, int]:
    """Returns how many multiprocessors the device has, and how many threads one holds."""
    properties: Any = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.max_threads_per_multi_processor
