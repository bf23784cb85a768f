"""Decodes pictures when they are asked for: a set of millions is never in memory. Imports pillow then."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pmexp.errors import UserError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

# Which decoders may look at a file: none that starts another program, as that of PostScript does.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

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

    def image(self, index: int) -> "Image":
        """Returns the picture at an index as pillow's."""
        return self.reduced(index, None)[0]

    def reduced(self, index: int, shorter_side: int | None) -> tuple["Image", tuple[int, int]]:
        """Returns a picture, perhaps at a reduced scale, and its whole (width, height).

        shorter_side: pixels that suffice. A JPEG with two, four or eight times as many is decoded at a half,
        a quarter or an eighth of its size: its pixels are means over squares of the whole picture's.
        """
        from PIL import Image

        from pmexp.datasets.shown_picture import shown

        row = int(self._rows[index])
        source = self._sources[row]
        name = source if isinstance(source, str) else f"picture {row} ({(source or {}).get('path')})"
        for told in _LISTENERS:
            told(name)
        try:
            with Image.open(_file(source), formats=_FORMATS) as image:
                return shown(image, shorter_side)
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
