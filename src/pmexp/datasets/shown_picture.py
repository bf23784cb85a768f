"""Makes of a picture that pillow opened the RGB pixels that a viewer shows.

It is turned as the EXIF orientation says, transparency over white, the upper 8 of 16 bits a channel, and the
first of several frames or pages. Colour profiles are not applied, as is usual in training on pictures.
"""

from typing import Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THE_SIDE = {_TURNED[number] for number in (5, 6, 7, 8)}  # width and height change places
_BITS, _WHITE_IS_ZERO = 258, (262, 0)  # TIFF's tags: bits a sample, and the photometric one with its value


def shown(image: Image.Image, shorter_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the first frame of an opened picture as RGB, and the (width, height) of the whole.

    shorter_side: pixels that suffice, as `Pictures.reduced` has it. Raises ValueError for pixels without a
    brightness.
    """
    turn = _TURNED.get(_orientation(image))
    width, height = image.size
    if shorter_side is not None:
        image.draft(None, (shorter_side, shorter_side))
    image.load()
    if image.mode.startswith("I"):
        rgb = _grey(image)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose brightness no standard fixes")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    if turn is None:
        return rgb, (width, height)
    return rgb.transpose(turn), (height, width) if turn in _ON_THE_SIDE else (width, height)


def _orientation(image: Image.Image) -> int:
    """The number of an orientation; 1, upright, where none can be read, and for TIFF, which pillow turns."""
    if image.format == "TIFF":
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a viewer shows a picture whose EXIF data is damaged, too
        return 1


def _grey(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits, which pillow would clip instead of scaling."""
    tags: Any = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its pixels are signed or 32-bit integers, whose brightness no standard fixes")
    values = np.asarray(image).astype(np.int64)
    grey = (values >> (tags.get(_BITS, (16,))[0] - 8)).astype(np.uint8)
    if (_WHITE_IS_ZERO[0], tags.get(_WHITE_IS_ZERO[0])) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")
