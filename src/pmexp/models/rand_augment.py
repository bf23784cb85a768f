"""Distorts pictures by RandAugment (Cubuk et al., 2020) as kornia defines it, on 8-bit pixels by pillow.

Two different ones of 15 operations are applied one after the other, each at magnitude 9 of 30. What an
operation is, and how strong, is kornia's: brightness adds, contrast multiplies, colour scales the saturation,
and `solarize_add` has a threshold drawn anew. Between operations pixels are rounded to 8 bits, where kornia
keeps floating-point numbers. Tests compare every operation with kornia's.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

_OPERATIONS, _MAGNITUDE = 2, 9 / 30
_LEVELS = np.arange(256) / 255  # what the 8-bit values of a channel stand for
_FACTOR = 0.1 + 1.8 * _MAGNITUDE  # that colour, contrast, brightness and sharpness have
_BITS = int(8 - 4 * _MAGNITUDE)  # that posterize keeps: 8 at magnitude 0, 4 at 30
_SMOOTH = ImageFilter.Kernel((3, 3), (1, 1, 1, 1, 5, 1, 1, 1, 1))  # the blur that sharpness mixes in
_ANGLE = math.radians(30 * _MAGNITUDE)
_SHEAR = math.tan(math.radians(0.3 * 180 * _MAGNITUDE))
_SHIFT = 0.1 * _MAGNITUDE  # a share of the picture's side

Rng = np.random.Generator
Operation = Callable[[Image.Image, Rng], Image.Image]


def rand_augment(image: Image.Image, random: Rng) -> Image.Image:
    """Returns an RGB picture of the same size, distorted as `random` draws it."""
    for number in random.permutation(len(OPERATIONS))[:_OPERATIONS]:
        image = OPERATIONS[number](image, random)
    return image


def _sign(random: Rng) -> int:
    return 1 if random.random() < 0.5 else -1


def _by_level(image: Image.Image, levels: NDArray[np.float64]) -> Image.Image:
    """Puts `levels` in the place of each channel's 256 values: (256,) or (768,), from 0 to 1, cut to that."""
    table = np.rint(255 * levels.clip(0, 1)).astype(int).tolist()
    return image.point(table * (3 * 256 // len(table)))


def _auto_contrast(image: Image.Image, random: Rng) -> Image.Image:
    ends = np.array(image.getextrema()) / 255  # (channels, 2)
    low, high = ends[:, :1], ends[:, 1:]
    return _by_level(image, ((_LEVELS - low) / np.maximum(high - low, 1e-6)).ravel())


def _equalize(image: Image.Image, random: Rng) -> Image.Image:
    counts = np.array(image.histogram()).reshape(3, 256)
    return _by_level(image, np.concatenate([_equalized(count) for count in counts]) / 255)


def _equalized(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the 256 values that a channel's values become, so that each is about as frequent."""
    used = counts[counts > 0]
    step = int(counts.sum() - used[-1]) // 255
    if not step:
        return np.arange(256)
    below = np.cumsum(counts) - counts
    equalized: NDArray[np.int64] = np.minimum((below + step // 2) // step, 255)
    return equalized


def _invert(image: Image.Image, random: Rng) -> Image.Image:
    return ImageChops.invert(image)


def _posterize(image: Image.Image, random: Rng) -> Image.Image:
    return _by_level(image, (np.arange(256) >> (8 - _BITS) << (8 - _BITS)) / 255)


def _solarized(levels: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    return np.where(levels < threshold, levels, 1 - levels)


def _solarize(image: Image.Image, random: Rng) -> Image.Image:
    return _by_level(image, _solarized(_LEVELS, _MAGNITUDE))


def _solarize_add(image: Image.Image, random: Rng) -> Image.Image:
    return _by_level(image, _solarized((_LEVELS + 0.43 * _MAGNITUDE).clip(0, 1), random.random()))


def _color(image: Image.Image, random: Rng) -> Image.Image:
    """Scales the saturation of HSV: each channel moves towards the largest."""
    red, green, blue = image.split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return Image.blend(Image.merge("RGB", (largest, largest, largest)), image, _FACTOR)


def _contrast(image: Image.Image, random: Rng) -> Image.Image:
    return _by_level(image, _LEVELS * _FACTOR)


def _brightness(image: Image.Image, random: Rng) -> Image.Image:
    return _by_level(image, _LEVELS + _FACTOR - 1)


def _sharpness(image: Image.Image, random: Rng) -> Image.Image:
    return Image.blend(image.filter(_SMOOTH), image, _FACTOR)


def _rotate(image: Image.Image, random: Rng) -> Image.Image:
    angle = _sign(random) * _ANGLE
    return _moved(image, ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))


def _shear_x(image: Image.Image, random: Rng) -> Image.Image:
    return _moved(image, ((1, _sign(random) * _SHEAR), (0, 1)))


def _shear_y(image: Image.Image, random: Rng) -> Image.Image:
    return _moved(image, ((1, 0), (_sign(random) * _SHEAR, 1)))


def _translate_x(image: Image.Image, random: Rng) -> Image.Image:
    return _moved(image, ((1, 0), (0, 1)), (_sign(random) * _SHIFT * image.width, 0))


def _translate_y(image: Image.Image, random: Rng) -> Image.Image:
    return _moved(image, ((1, 0), (0, 1)), (0, _sign(random) * _SHIFT * image.height))


def _moved(
    image: Image.Image,
    matrix: tuple[tuple[float, float], tuple[float, float]],
    shift: tuple[float, float] = (0, 0),
) -> Image.Image:
    """Returns a picture whose pixel at p, counted from the middle, is `image`'s at `matrix` p - `shift`,
    bilinear, and black beyond its edges."""
    (a, b), (d, e) = matrix
    x, y = image.width / 2, image.height / 2
    map_back = (a, b, x - a * x - b * y - shift[0], d, e, y - d * x - e * y - shift[1])
    return image.transform(image.size, Image.Transform.AFFINE, map_back, Image.Resampling.BILINEAR)


OPERATIONS: tuple[Operation, ...] = (  # in kornia's order
    _auto_contrast, _equalize, _invert, _rotate, _posterize, _solarize, _solarize_add, _color, _contrast,
    _brightness, _sharpness, _shear_x, _shear_y, _translate_x, _translate_y,
)  # fmt: skip
