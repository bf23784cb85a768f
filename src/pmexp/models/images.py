"""Makes batches of 8-bit pixels from pictures of any size: pillow decodes, torch crops and augments.

Evaluation scales the shorter side to 256 / 224 of the size (bicubic with antialiasing, as ViT's checkpoints
were made for) and cuts out the middle. Training flips the same crop every second time, and applies
RandAugment. Pixels become the numbers that a model takes where they are computed with (`Colours`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import get_worker_info

from pmexp.datasets.pictures import Pictures
from pmexp.models.rand_augment import rand_augment

_SHORTER_SIDE = 256 / 224
_SPARE = 2  # a JPEG decoded at a reduced scale keeps so many times the side that it is then scaled to
_LONGEST = 2  # a picture longer than twice its shorter side is cut to its middle before it is scaled
_NOT_BELOW = 1 + 1e-7  # keeps the scaled size, which torch rounds down, from being one pixel less
_THREADS = 4  # that decode where no worker does: pillow lets others run meanwhile


def record() -> str:
    """Returns how pictures are decoded, for the record of a run."""
    scale = f"JPEG of {2 * _SPARE} times the size and more decoded at a reduced scale"
    return f"pillow {version('pillow')}, 8 bits; {scale}; resized by torch"


class ImageBatches:
    """Makes batches of `pictures`.

    What a training picture becomes depends on `seed`, the epoch and its row alone, not on its batch, on the
    process or on what was drawn before: a resumed run sees the same pixels.
    """

    def __init__(self, pictures: Pictures, train: bool, size: int = 224, seed: int = 0) -> None:
        self._pictures, self._train, self._size, self._seed = pictures, train, size, seed

    def batch(self, rows: Sequence[int], epoch: int = 0) -> Tensor:
        """Returns (rows, 3, size, size), uint8."""
        pixels = torch.empty((len(rows), 3, self._size, self._size), dtype=torch.uint8)

        def fill(place: int) -> None:
            pixels[place] = self._picture(rows[place], epoch)

        if get_worker_info() is None:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(fill, range(len(rows))))
        else:
            for place in range(len(rows)):
                fill(place)
        return pixels

    def _picture(self, row: int, epoch: int) -> Tensor:
        pixels = self._crop(row)
        if not self._train:
            return pixels
        random = np.random.default_rng((self._seed, epoch, row))
        return rand_augment(pixels.flip(2) if random.random() < 0.5 else pixels, random)

    def _crop(self, row: int) -> Tensor:
        """Returns the middle of a picture whose shorter side is scaled: (3, size, size), uint8."""
        shorter = round(self._size * _SHORTER_SIDE)
        image, whole = self._pictures.reduced(row, _SPARE * shorter)
        reduction = round(max(whole) / max(image.size))  # a power of two; the size was rounded up
        across, down = (side / reduction for side in whole)  # the size of the picture in pixels of `image`
        ends = [max(0, int(side - _LONGEST * min(across, down)) // 2) for side in (across, down)]
        if any(ends):
            image = image.crop((ends[0], ends[1], image.width - ends[0], image.height - ends[1]))
            across, down = across - 2 * ends[0], down - 2 * ends[1]
        width, height = (round(side * shorter / min(across, down)) for side in (across, down))
        scaled = functional.interpolate(
            torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2),
            scale_factor=[height / down * _NOT_BELOW, width / across * _NOT_BELOW],
            mode="bicubic",
            antialias=True,
        )
        left, top = (width - self._size) // 2, (height - self._size) // 2
        return scaled[0, :, top : top + self._size, left : left + self._size].contiguous()
