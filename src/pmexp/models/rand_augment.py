"""Distorts pictures by RandAugment (Cubuk et al., 2020) as kornia defines it, on 8-bit pixels by torch.

Two different ones of 15 operations are applied one after the other, each at magnitude 9 of 30. What an
operation is, and how strong, is kornia's: brightness adds, contrast multiplies, colour scales the saturation,
and `solarize_add` has a threshold drawn anew. Between operations pixels are rounded to 8 bits, where kornia
keeps floating-point numbers. Tests compare every operation with kornia's.

Pictures are uint8, (3, height, width). No operation's result depends on how many threads torch has: each
number is computed alone, and by no operator that may fuse a product with a sum in some places only.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_OPERATIONS, _MAGNITUDE = 2, 9 / 30
_LEVELS = np.arange(256) / 255  # what the 8-bit values of a channel stand for
_FACTOR = 0.1 + 1.8 * _MAGNITUDE  # that colour, contrast, brightness and sharpness have
_BITS = int(8 - 4 * _MAGNITUDE)  # that posterize keeps: 8 at magnitude 0, 4 at 30
_ANGLE = math.radians(30 * _MAGNITUDE)
_SHEAR = math.tan(math.radians(0.3 * 180 * _MAGNITUDE))
_SHIFT = 0.1 * _MAGNITUDE  # a share of the picture's side

Rng = np.random.Generator
Operation = Callable[[Tensor, Rng], Tensor]
Affine = tuple[tuple[float, float, float], tuple[float, float, float]]


def rand_augment(pixels: Tensor, random: Rng) -> Tensor:
    """Returns a picture of the same size, distorted as `random` draws it."""
    for number in random.permutation(len(OPERATIONS))[:_OPERATIONS]:
        pixels = OPERATIONS[number](pixels, random)
    return pixels


def _sign(random: Rng) -> int:
    return 1 if random.random() < 0.5 else -1


def _by_level(pixels: Tensor, levels: NDArray[np.float64]) -> Tensor:
    """Puts `levels` in the place of each channel's 256 values: (256,) or (3, 256), cut to 0 to 1."""
    table = torch.from_numpy(np.rint(255 * levels.clip(0, 1)).astype(np.uint8)).flatten()
    places = pixels.int()
    if levels.ndim == 2:
        places += 256 * torch.arange(3, dtype=torch.int32)[:, None, None]
    return table.index_select(0, places.flatten()).view(pixels.shape)


def _auto_contrast(pixels: Tensor, random: Rng) -> Tensor:
    low, high = (ends[:, None].numpy() / 255 for ends in (pixels.amin((1, 2)), pixels.amax((1, 2))))
    return _by_level(pixels, (_LEVELS - low) / np.maximum(high - low, 1e-6))


def _equalize(pixels: Tensor, random: Rng) -> Tensor:
    counts = (torch.bincount(channel.flatten(), minlength=256).numpy() for channel in pixels)
    return _by_level(pixels, np.stack([_equalized(count) for count in counts]) / 255)


def _equalized(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the 256 values that a channel's values become, so that each is about as frequent."""
    used = counts[counts > 0]
    step = int(counts.sum() - used[-1]) // 255
    if not step:
        return np.arange(256)
    below = np.cumsum(counts) - counts
    equalized: NDArray[np.int64] = np.minimum((below + step // 2) // step, 255)
    return equalized


def _invert(pixels: Tensor, random: Rng) -> Tensor:
    return 255 - pixels


def _posterize(pixels: Tensor, random: Rng) -> Tensor:
    return pixels & (256 - (1 << (8 - _BITS)))


def _solarized(levels: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    return np.where(levels < threshold, levels, 1 - levels)


def _solarize(pixels: Tensor, random: Rng) -> Tensor:
    return _by_level(pixels, _solarized(_LEVELS, _MAGNITUDE))


def _solarize_add(pixels: Tensor, random: Rng) -> Tensor:
    return _by_level(pixels, _solarized((_LEVELS + 0.43 * _MAGNITUDE).clip(0, 1), random.random()))


def _color(pixels: Tensor, random: Rng) -> Tensor:
    """Scales the saturation of HSV: each channel moves towards the largest."""
    return _mixed(pixels.amax(0).float(), pixels)


def _contrast(pixels: Tensor, random: Rng) -> Tensor:
    return _by_level(pixels, _LEVELS * _FACTOR)


def _brightness(pixels: Tensor, random: Rng) -> Tensor:
    return _by_level(pixels, _LEVELS + _FACTOR - 1)


def _sharpness(pixels: Tensor, random: Rng) -> Tensor:
    """Mixes in a blur of 3 x 3 pixels, the middle one five times as heavy; the rim stays."""
    values = pixels.short()
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    inner = values[:, 1:-1, 1:-1]
    blur = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner).float().div_(13)
    sharp = pixels.clone()
    sharp[:, 1:-1, 1:-1] = _mixed(blur, inner)
    return sharp


def _mixed(other: Tensor, pixels: Tensor) -> Tensor:
    """Returns a mixture of float32 `other` and `pixels`, of which there is a share of `_FACTOR`."""
    return pixels.float().sub_(other).mul_(_FACTOR).add_(other).round_().to(torch.uint8)


def _rotate(pixels: Tensor, random: Rng) -> Tensor:
    cos, sin = math.cos(_ANGLE), _sign(random) * math.sin(_ANGLE)
    return _moved(pixels, ((cos, -sin, 0), (sin, cos, 0)))


def _shear_x(pixels: Tensor, random: Rng) -> Tensor:
    return _moved(pixels, ((1, _sign(random) * _SHEAR, 0), (0, 1, 0)))


def _shear_y(pixels: Tensor, random: Rng) -> Tensor:
    return _moved(pixels, ((1, 0, 0), (_sign(random) * _SHEAR, 1, 0)))


def _translate_x(pixels: Tensor, random: Rng) -> Tensor:
    return _moved(pixels, ((1, 0, -_sign(random) * _SHIFT), (0, 1, 0)))


def _translate_y(pixels: Tensor, random: Rng) -> Tensor:
    return _moved(pixels, ((1, 0, 0), (0, 1, -_sign(random) * _SHIFT)))


def _moved(pixels: Tensor, matrix: Affine) -> Tensor:
    """Returns a picture whose pixel at p is `pixels` at `matrix` (p, 1), bilinear, black beyond its edges.

    p counts pixels from the middle; what `matrix` adds is a share of the side.
    """
    grid = _grid(matrix, *pixels.shape[1:])
    moved = functional.grid_sample(pixels.float()[None], grid, align_corners=False)
    return moved[0].round_().to(torch.uint8)


@cache  # two of each operation for each size of pictures: as slow to make as to use
def _grid(matrix: Affine, height: int, width: int) -> Tensor:
    (a, b, x), (d, e, y) = matrix
    tall = height / width
    sides = torch.tensor([[[a, b * tall, 2 * x], [d / tall, e, 2 * y]]])  # in halves of the sides
    return functional.affine_grid(sides, [1, 1, height, width], align_corners=False)


OPERATIONS: tuple[Operation, ...] = (  # in kornia's order
    _auto_contrast, _equalize, _invert, _rotate, _posterize, _solarize, _solarize_add, _color, _contrast,
    _brightness, _sharpness, _shear_x, _shear_y, _translate_x, _translate_y,
)  # fmt: skip
