"""Pictures that are decoded when they are asked for: a set of millions is never in memory."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmexp.errors import UserError


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
        """The same as a picture of pillow."""
        row = int(self._rows[index])
        source = self._sources[row]
        if isinstance(source, dict):
            name = f"picture {row} ({source.get('path')})"
            data = source["bytes"]
            file = BytesIO(data) if data is not None else source["path"]
        else:
            name, file = str(source), Path(source)
        try:
            with Image.open(file) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from None

    def take(self, rows: NDArray[np.int64]) -> "Pictures":
        return Pictures(self._sources, self._rows[rows])
