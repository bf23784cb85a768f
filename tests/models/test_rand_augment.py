"""RandAugment is kornia's: the same operations, as strong, drawn by the same law."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from kornia.augmentation.auto import RandAugment
from PIL import Image
from sklearn.datasets import load_sample_images

from pmexp.models.rand_augment import OPERATIONS, rand_augment

_SIDE, _THRESHOLD = 64, 0.4


class Drawn:
    """Draws one number for ever."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self) -> float:
        return self._number


def by_kornia(number: int, pixels: torch.Tensor, sign: int) -> np.ndarray[Any, Any]:
    """What kornia's operation makes of (3, side, side) at magnitude 9, in levels of 255."""
    augment: Any = RandAugment(n=2, m=9)
    operation = list(augment.children())[number][0]
    low, high = (0.0, 0.0) if operation.magnitude_range is None else map(float, operation.magnitude_range)
    size = _SIDE if str(operation._factor_name).startswith("translate") else 1
    share = 0.7 if operation._factor_name == "bits_factor" else 0.3
    magnitude = None if operation.magnitude_range is None else torch.tensor([low + share * (high - low)])
    params = operation.forward_parameters(
        torch.Size((1, 3, _SIDE, _SIDE)), None if magnitude is None else magnitude * size
    )
    if operation.symmetric_megnitude:
        params[operation._factor_name] = params[operation._factor_name].abs() * sign
    if params.get("additions", torch.zeros(1)).item() > 0:  # solarize_add's threshold is drawn
        params["thresholds"] = torch.tensor([_THRESHOLD])
    made: torch.Tensor = operation(pixels[None], params)[0]
    return 255 * made.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=[one.__name__ for one in OPERATIONS])
def test_an_operation_is_kornias_to_a_level_of_255(number: int, sign: int) -> None:
    photograph = Image.fromarray(load_sample_images().images[1]).resize((_SIDE, _SIDE))
    pixels = torch.from_numpy(np.asarray(photograph).copy()).permute(2, 0, 1).float() / 255
    draws: Any = Drawn(_THRESHOLD if sign > 0 else 1 - _THRESHOLD)
    if OPERATIONS[number].__name__ == "_solarize_add":
        draws = Drawn(_THRESHOLD)
    made = OPERATIONS[number](torch.from_numpy(np.asarray(photograph).copy()).permute(2, 0, 1), draws)
    made = made.permute(1, 2, 0).numpy().astype(float)
    apart = np.abs(made - by_kornia(number, pixels, sign)).max(axis=2)
    assert apart.max() < 1.2


def test_two_different_operations_are_drawn_and_any_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    spies = [lambda image, random, n=n: (drawn.append(n), image)[1] for n in range(len(OPERATIONS))]
    monkeypatch.setattr("pmexp.models.rand_augment.OPERATIONS", spies)
    image = Image.new("RGB", (2, 2))
    for seed in range(6000):
        rand_augment(image, np.random.default_rng(seed))
    pairs = Counter(zip(drawn[::2], drawn[1::2], strict=True))
    assert len(pairs) == 15 * 14 and all(first != second for first, second in pairs)
    expected = 6000 / len(pairs)
    assert sum((n - expected) ** 2 / expected for n in pairs.values()) < 209 + 5 * (2 * 209) ** 0.5
