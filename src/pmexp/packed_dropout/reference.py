"""Defines what packed dropout means, in plain torch: slow and obvious.

Every faster backend must give these bits. Two layouts are fixed here.

Mask bits.  A mask of N values at `bits` = 1, 2 or 4 bits a value is a flat uint8 tensor of
ceil(N * bits / 8) bytes, in row-major order, least significant bits first:
``packed[j] = OR_i keep[k*j + i] << (bits*i)`` with k = 8 / bits. Bits behind the last value are 0.

Random words.  Philox4x32-10 with key = (seed low, seed high) and counter = (c low, c high, 0, 0).
Element e takes word w of counter c, where e = 32*b + 8*w + l and c = 8*b + l: eight neighbouring
counters fill 32 elements, so that a vector of eight lanes yields whole mask bytes.

Products.  A kept element times 1 / (1 - p) is computed in the compute dtype, float64 for float64 and
float32 for all else, by a factor of that dtype, and then rounded to the dtype of x: as CUDA's nn.Dropout
computes it. A factor rounded to 16 bits would shift the mean of every output, by up to 0.4 % in bfloat16.

Source of the generator: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_ROUND_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def packed_bytes(numel: int, bits: int) -> int:
    """Bytes that hold `numel` mask values of `bits` bits."""
    return (numel * bits + 7) // 8


def pack_bits(mask: Tensor, bits: int = 1) -> Tensor:
    """Packs a Boolean (or 0/1) tensor of any shape into a flat uint8 tensor, 8 / `bits` values a byte."""
    per_byte = values_per_byte(bits)
    flat = mask.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % per_byte)).view(-1, per_byte)
    packed = padded[:, 0].clone()
    for i in range(1, per_byte):
        packed |= padded[:, i] << (bits * i)
    return packed


def unpack_bits(packed: Tensor, shape: torch.Size | tuple[int, ...], bits: int = 1) -> Tensor:
    """The Boolean mask of `shape` that `pack_bits` packed. Raises ValueError when the sizes disagree."""
    per_byte = values_per_byte(bits)
    numel = torch.Size(shape).numel()
    if packed.dtype != torch.uint8 or packed.numel() != packed_bytes(numel, bits):
        raise ValueError(
            f"packed mask: {packed.numel()} x {packed.dtype} given, a mask of shape {tuple(shape)} "
            f"at {bits} bit(s) takes {packed_bytes(numel, bits)} x torch.uint8"
        )
    flat = packed.new_empty((packed.numel(), per_byte), dtype=torch.bool)
    for i in range(per_byte):
        flat[:, i] = (packed >> (bits * i)) & 1
    return flat.view(-1)[:numel].view(shape)


def philox(counter: Words, key: tuple[Tensor, ...]) -> Words:
    """Philox4x32-10: four 32-bit words of each counter, held in int64 tensors."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The int64 product of two 32-bit words may wrap; its 64 bits are right all the same.
        product0, product1 = c0 * _ROUND_MULTIPLIERS[0], c2 * _ROUND_MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _WORD) ^ c1 ^ k0,
            product1 & _WORD,
            ((product0 >> 32) & _WORD) ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _WORD, (k1 + _KEY_INCREMENTS[1]) & _WORD
    return c0, c1, c2, c3


def random_words(numel: int, seed: Tensor) -> Tensor:
    """The first `numel` 32-bit random words of `seed` (int64, one element) as int64, in element order."""
    blocks = (numel + 31) // 32
    counter = torch.arange(8 * blocks, device=seed.device)
    zero = torch.zeros((), dtype=torch.int64, device=seed.device)
    seed = seed.reshape(())
    words = philox((counter & _WORD, counter >> 32, zero, zero), (seed & _WORD, (seed >> 32) & _WORD))
    return torch.stack(words).view(4, blocks, 8).transpose(0, 1).reshape(-1)[:numel]


def draw_mask(shape: torch.Size, seed: Tensor, p: float) -> Tensor:
    """Boolean mask of `shape`: True (kept) with probability 1 - p, to within 2**-33."""
    threshold = round((1.0 - p) * 2**32)
    return (random_words(shape.numel(), seed) < threshold).view(shape)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype in which products of tensors of `dtype` are computed."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def rounded(value: float, dtype: torch.dtype) -> float:
    """The number of `dtype` that is nearest to `value`, in its normal range; infinity above its largest."""
    limits = torch.finfo(dtype)
    spacing = limits.eps * 2.0 ** (math.frexp(value)[1] - 1)
    nearest = round(value / spacing) * spacing  # Python rounds halves to the even neighbour
    return nearest if nearest <= limits.max else math.inf


def kept_scale(p: float, dtype: torch.dtype) -> float:
    """The factor of kept elements: 1 / (1 - p), of 1 - p in the compute dtype; 1 where p = 1 keeps none."""
    compute = compute_dtype(dtype)
    return rounded(1.0 / rounded(1.0 - p, compute), compute) if p < 1.0 else 1.0


def stock_cpu_scale(p: float, dtype: torch.dtype) -> float:
    """The factor of nn.Dropout on the CPU, which is rounded to `dtype`: biased in float16 and bfloat16."""
    return rounded(kept_scale(p, dtype), dtype)


def scaled(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """x * (scale where kept, else 0) in x's dtype and layout.

    Rounds once: x * keep is exact, and torch multiplies a tensor by a Python number in the compute dtype.
    """
    if scale == math.inf:  # stock has it on the CPU in float16 from p = 0.99999 on, and 0 * inf would be NaN
        return torch.where(keep != 0, x * scale, x * 0.0)
    return x * keep * scale


def apply_mask(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """x * keep / (1 - p) in x's dtype and layout."""
    return scaled(x, keep, kept_scale(p, x.dtype))


def _seed_at(device: torch.device, seed: Tensor | int) -> Tensor:
    return torch.tensor(seed, device=device) if isinstance(seed, int) else seed.to(device)


def packed_dropout(x: Tensor, seed: Tensor | int, p: float, bits: int) -> tuple[Tensor, Tensor]:
    """x * keep / (1 - p) by a mask drawn from `seed`, and the packed mask.

    seed: on the device of x or the CPU, or a number where no dispatcher lies between.
    """
    keep = draw_mask(x.shape, _seed_at(x.device, seed), p)
    return apply_mask(x, keep, p), pack_bits(keep, bits)


def apply_packed_mask(x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
    """x * keep / (1 - p) by the mask in `packed`."""
    return apply_mask(x, unpack_bits(packed, x.shape, bits), p)


def scale_packed_mask(x: Tensor, packed: Tensor, scale: float, bits: int) -> Tensor:
    """x * keep * scale by the mask in `packed`; `scale` is taken in the compute dtype."""
    return scaled(x, unpack_bits(packed, x.shape, bits), scale)


def seeded_dropout(x: Tensor, seed: Tensor | int, p: float) -> Tensor:
    """x * keep / (1 - p) by the mask that `packed_dropout` draws from the same seed."""
    return apply_mask(x, draw_mask(x.shape, _seed_at(x.device, seed), p), p)


def bias_dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, seed: Tensor, p: float, bits: int
) -> tuple[Tensor, Tensor]:
    """residual + dropout(x + bias), each step rounded to the dtype of x, and the packed mask.

    x and residual have one shape and dtype; bias, if any, is (x.shape[-1],) of that dtype.
    """
    check_addends(x, bias, residual)
    y, packed = packed_dropout(x if bias is None else x + bias, seed, p, bits)
    return y.add_(residual), packed


def check_addends(x: Tensor, bias: Tensor | None, residual: Tensor) -> None:
    """Raises ValueError where bias_dropout_add would broadcast or promote."""
    if residual.shape != x.shape or residual.dtype != x.dtype:
        raise ValueError(
            f"residual: {tuple(residual.shape)} {residual.dtype} given; it must be as x, "
            f"{tuple(x.shape)} {x.dtype}"
        )
    if bias is not None and (bias.shape != x.shape[-1:] or bias.dtype != x.dtype or x.dim() == 0):
        raise ValueError(
            f"bias: {tuple(bias.shape)} {bias.dtype} given; allowed is one value for each column of x, "
            f"{tuple(x.shape[-1:])} {x.dtype}"
        )


def values_per_byte(bits: int) -> int:
    """Mask values in a byte at `bits` bits a value. Raises ValueError for another width than 1, 2, 4."""
    if bits not in (1, 2, 4):
        raise ValueError(f"bits: {bits!r} is not a width; allowed are 1, 2 and 4 bits a mask value")
    return 8 // bits


OPERATORS = {
    function.__name__: function
    for function in (
        packed_dropout,
        apply_packed_mask,
        scale_packed_mask,
        seeded_dropout,
        bias_dropout_add,
        pack_bits,
        unpack_bits,
    )
}
