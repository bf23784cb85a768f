"""Makes batches of tensors from pictures of any size: crop, augmentation, normalisation.

Evaluation scales the shorter side to 256 / 224 of the size (bicubic, as ViT's checkpoints were made for),
cuts out the middle and normalises it. Training flips the same crop every second time, and applies RandAugment
with 2 operations of magnitude 9 (Cubuk et al., 2020) from kornia, for pictures in [0, 1].
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmexp.datasets.pictures import Pictures
from pmexp.errors import UserError

_SHORTER_SIDE = 256 / 224
MEAN = STD = 0.5  # as ViT's checkpoints were trained
_OPERATIONS, _MAGNITUDE = 2, 9


class ImageBatches:
    """Makes batches of `pictures`.

    What a training picture becomes depends on `seed`, the epoch and its row alone, not on its batch or on
    what was drawn before: a resumed run sees the same pixels.

    Call `batch` from one thread: augmentation borrows torch's generator and gives it back as it was.
    Raises UserError when training is asked for and kornia is not installed.
    """

    def __init__(
        self, pictures: Pictures, train: bool, size: int = 224, seed: int = 0, threads: int = 4
    ) -> None:
        self._pictures, self._size, self._seed = pictures, size, seed
        self._augment = _rand_augment() if train else None
        self._pool = ThreadPoolExecutor(threads)

    def batch(self, rows: Sequence[int], epoch: int = 0) -> Tensor:
        """Returns (rows, 3, size, size), float32, from -1 to 1."""
        crops = torch.from_numpy(np.stack(list(self._pool.map(self._crop, rows))))
        images = crops.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self._augment is not None:
            images = torch.stack(
                [self._augmented(image, epoch, row) for image, row in zip(images, rows, strict=True)]
            )
        return (images - MEAN) / STD

    def _crop(self, row: int) -> NDArray[np.uint8]:
        image = self._pictures.image(row)
        scale = round(self._size * _SHORTER_SIDE) / min(image.size)
        width, height = (max(self._size, round(side * scale)) for side in image.size)
        left, top = (width - self._size) // 2, (height - self._size) // 2
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized.crop((left, top, left + self._size, top + self._size)))

    def _augmented(self, image: Tensor, epoch: int, row: int) -> Tensor:
        assert self._augment is not None
        seed = np.random.SeedSequence([self._seed, epoch, row]).generate_state(1, np.uint64)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
            result: Tensor = self._augment(image[None])[0]
        return result


def _rand_augment() -> Any:
    try:
        from kornia.augmentation.auto import RandAugment
    except ImportError:
        raise UserError(
            "dataset: training on pictures needs kornia for RandAugment; install it with pip install kornia"
        ) from None
    return RandAugment(n=_OPERATIONS, m=_MAGNITUDE)
