"""Computes on the host the seeds of Philox masks on CUDA: those that torch.randint would draw there.

torch.randint(0, 2**62, (1,)) launches a kernel for eight bytes: the first two words of one Philox call, whose
key is the generator's seed and whose counter is a quarter of its offset. Both are known on the host. The same
call on the host costs no launch, and the masks stay the same whoever draws the seed: what eager mode
drew in forward, a recomputation under a dispatch mode draws again.

That is no interface of torch, so it is compared with torch's own draw once for each device. Where it differs,
torch.randint stays, and torch_rng_record() says so.
"""

from functools import cache, lru_cache

import torch

from pmexp.packed_dropout import cuda_rng, reference

BELOW = 2**62  # seeds are drawn from [0, BELOW)
_INCREMENT = 4  # the generator's offset grows by one Philox call a seed
_WORD = 0xFFFFFFFF
_BLOCK_BITS = 9
_BLOCK = 1 << _BLOCK_BITS  # so many neighbouring seeds are computed at once
_MOST_BLOCKS = 64
_blocks: dict[
    tuple[int, int], tuple[int, ...]
] = {}  # keyed by generator seed and block number; a block stays empty until its second seed is asked for


def known_on_host(device: torch.device) -> bool:
    """Whether the next seed of a CUDA device can be computed, in eager mode.

    A captured or traced program has to draw anew at each run, and transforms and modes are shown the draw.
    """
    return not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or torch.cuda.is_current_stream_capturing()
    ) and _torch_draws_it(device)


def draw(device: torch.device) -> int:
    """The next seed of the device's default generator, which it advances."""
    return cached_seed_at(*cuda_rng.advance(device, _INCREMENT))


def cached_seed_at(seed: int, offset: int) -> int:
    """seed_at(), out of a block of neighbouring offsets, computed at once when two of them were asked for.

    One seed in Python's integers takes as long as the launch that it spares. The first of a block is still
    computed so: where other operators advance the generator far, nobody asks for a second one.
    """
    block = seed, offset >> 2 >> _BLOCK_BITS
    seeds = _blocks.get(block)
    if seeds:
        return seeds[offset >> 2 & _BLOCK - 1]
    if len(_blocks) == _MOST_BLOCKS:
        _blocks.clear()
    _blocks[block] = () if seeds is None else _seeds_of(*block)
    return seed_at(seed, offset)


def _seeds_of(seed: int, block: int) -> tuple[int, ...]:
    with torch._C.DisableTorchFunction():  # modes around shall not see these calls
        call = torch.arange(block << _BLOCK_BITS, block + 1 << _BLOCK_BITS, device="cpu")
        zero = torch.zeros_like(call)
        key = torch.tensor([seed & _WORD, seed >> 32], device="cpu").unbind()
        c0, c1, _, _ = reference.philox((call & _WORD, call >> 32, zero, zero), key)
        return tuple(((c0 << 32 | c1) % BELOW).tolist())


def seed_at(seed: int, offset: int) -> int:
    """What torch.randint(0, BELOW, (1,)) draws on CUDA from a generator's seed, of 64 bits, and offset."""
    c0, c1, c2, c3 = offset >> 2 & _WORD, offset >> 34, 0, 0
    for k0, k1 in _round_keys(seed):
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = right >> 32 ^ c1 ^ k0, right & _WORD
        c2, c3 = left >> 32 ^ c3 ^ k1, left & _WORD
    return (c0 << 32 | c1) % BELOW


@lru_cache(maxsize=64)
def _round_keys(seed: int) -> tuple[tuple[int, int], ...]:
    """The keys of Philox4x32-10's rounds."""
    return tuple(
        (seed + turn * 0x9E3779B9 & _WORD, (seed >> 32) + turn * 0xBB67AE85 & _WORD) for turn in range(10)
    )


@cache
def _torch_draws_it(device: torch.device) -> bool:
    """Whether this torch draws the seeds of seed_at(), by a generator that no other thread draws from."""
    generator = torch.Generator(device).manual_seed(2**62 + 5)
    for offset in (8, 2**36 + 4):
        generator.set_offset(offset)
        drawn = torch.randint(0, BELOW, (1,), dtype=torch.int64, device=device, generator=generator).item()
        advanced = generator.get_offset() - offset
        if drawn != seed_at(generator.initial_seed(), offset) or advanced != _INCREMENT:
            cuda_rng.count(f"seed by torch.randint: torch {torch.__version__} draws otherwise")
            return False
    return True
