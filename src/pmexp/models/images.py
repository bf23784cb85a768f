"""Makes batches of 8-bit pixels from pictures of any size: crop and augmentation.

Evaluation scales the shorter side to 256 / 224 of the size (bicubic, as ViT's checkpoints were made for) and
cuts out the middle. Training flips the same crop every second time, and applies RandAugment. Pixels become
the numbers from -1 to 1 that models take where they are computed with (`normalised`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from pmexp.datasets.pictures import Pictures

if TYPE_CHECKING:
    from PIL.Image import Image

_SHORTER_SIDE = 256 / 224
_SPARE = 2  # a JPEG decoded at a reduced scale keeps so many times the side that it is then scaled to
_THREADS = 4  # that decode where no worker does: pillow lets others run meanwhile
MEAN = STD = 0.5  # as ViT's checkpoints were trained


def record() -> str:
    """Returns how pictures are decoded, for the record of a run."""
    scale = f"JPEG of {2 * _SPARE} times the size and more decoded at a reduced scale"
    return f"pillow {version('pillow')}, 8 bits; {scale}"


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
        values = pixels.numpy()  # the same memory, but torch's, so that it is counted with a step's tensors

        def fill(place: int) -> None:
            values[place] = self._picture(rows[place], epoch).transpose(2, 0, 1)

        if get_worker_info() is None:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(fill, range(len(rows))))
        else:
            for place in range(len(rows)):
                fill(place)
        return pixels

    def _picture(self, row: int, epoch: int) -> NDArray[np.uint8]:
        from PIL.Image import Transpose

        from pmexp.models.rand_augment import rand_augment

        image = self._crop(row)
        if self._train:
            random = np.random.default_rng((self._seed, epoch, row))
            if random.random() < 0.5:
                image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
            image = rand_augment(image, random)
        return np.asarray(image)

    def _crop(self, row: int) -> "Image":
        from PIL.Image import Resampling

        shorter = round(self._size * _SHORTER_SIDE)
        image, whole = self._pictures.reduced(row, _SPARE * shorter)
        scale = shorter / min(whole)
        width, height = (max(self._size, round(side * scale)) for side in whole)
        left, top = (width - self._size) // 2, (height - self._size) // 2
        reduction = round(max(whole) / max(image.size))  # a power of two; the size was rounded up
        across, down = (side / reduction for side in (whole[0] / width, whole[1] / height))
        box = (left * across, top * down, (left + self._size) * across, (top + self._size) * down)
        return image.resize((self._size, self._size), Resampling.BICUBIC, box)


def normalised(pixels: Tensor) -> Tensor:
    """Returns pixels of 8 bits as float32, from -1 to 1."""
    return pixels.to(torch.float32).div_(255).sub_(MEAN).div_(STD)
