"""Decodes pictures when they are asked for: a set of millions is never in memory.

Each becomes the RGB pixels that a viewer shows: turned as its EXIF orientation says, transparency over
white, the upper 8 of 16 bits a channel, and the first of several frames or pages. Colour profiles are not
applied, as is usual in training on pictures.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from pmexp.errors import UserError, first_line

# Which decoders may look at a file: none that starts another program, as that of PostScript does.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
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

_LISTENERS: list[Callable[[str], None]] = []


def listen(listener: Callable[[str], None]) -> None:
    """Has this process tell `listener` the name of each picture before it is read."""
    _LISTENERS.append(listener)


class Pictures:
    """A sequence of RGB pictures of their own sizes, out of files or of a hub dataset's column of bytes.

    `sources`: file names, or mappings with `bytes` or `path`. Safe to read from several threads.
    """

    def __init__(self, sources: Sequence[Any], rows: NDArray[np.int64] | None = None) -> None:
        self._sources = sources
        self._rows = np.arange(len(sources)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """(height, width, 3), uint8. Raises UserError, which names the picture, when it cannot be decoded."""
        return np.asarray(self.image(index))

    def image(self, index: int) -> Image.Image:
        """Returns the picture at an index as pillow's."""
        return self.reduced(index, None)[0]

    def reduced(self, index: int, shorter_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
        """Returns a picture, perhaps at a reduced scale, and its whole (width, height).

        shorter_side: pixels that suffice. A JPEG with two, four or eight times as many is decoded at a half,
        a quarter or an eighth of its size: its pixels are means over squares of the whole picture's.
        """
        row = int(self._rows[index])
        source = self._sources[row]
        name = source if isinstance(source, str) else f"picture {row} ({(source or {}).get('path')})"
        for told in _LISTENERS:
            told(name)
        try:
            with Image.open(_file(source), formats=_FORMATS) as image:
                return _shown(image, shorter_side)
        except Exception as error:  # whatever a damaged file makes a decoder raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{name}: cannot be decoded ({reason}); remove it or save it anew") from None

    def files(self) -> list[str]:
        """Returns the names of those that come out of files."""
        sources = (self._sources[int(row)] for row in self._rows)
        return [source for source in sources if isinstance(source, str)]

    def take(self, rows: NDArray[np.int64]) -> "Pictures":
        return Pictures(self._sources, self._rows[rows])


def _file(source: Any) -> Path | BytesIO:
    if isinstance(source, str):
        return Path(source)
    if not source or (source["bytes"] is None and source["path"] is None):
        raise ValueError("the row has no picture")
    return Path(source["path"]) if source["bytes"] is None else BytesIO(source["bytes"])


def _shown(image: Image.Image, shorter_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """The first frame of an opened picture as RGB, and the size of it all."""
    turn = _TURNED.get(_orientation(image))
    width, height = image.size
    if shorter_side is not None:
        image.draft(None, (shorter_side, shorter_side))
    image.load()
    if image.mode.startswith("I"):
        shown = _grey(image)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose brightness no standard fixes")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        shown = image if image.mode == "RGB" else image.convert("RGB")
    if turn is None:
        return shown, (width, height)
    return shown.transpose(turn), (height, width) if turn in _ON_THE_SIDE else (width, height)


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
