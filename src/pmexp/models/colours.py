"""Turns pixels of 8 bits into the numbers that a model takes, by what its checkpoint says of them."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmexp.errors import UserError
from pmexp.models.checkpoint_files import PICTURE_SETTINGS, read_json


class Colours(NamedTuple):
    """Says how pixels become numbers: (share of white - mean) / deviation, from -1 to 1 by default.

    mean, deviation: a number of all channels, or one of each, in the model's order.
    """

    mean: tuple[float, ...] = (0.5,)
    deviation: tuple[float, ...] = (0.5,)
    blue_first: bool = False  # the model takes blue, green and red

    def numbers(self, pixels: Tensor) -> Tensor:
        """Returns pixels (samples, channels, height, width) of 8 bits as float32."""
        numbers = pixels.to(torch.float32).div_(255)
        if self.blue_first:
            numbers = numbers.flip(1)
        for values, change in ((self.mean, Tensor.sub_), (self.deviation, Tensor.div_)):
            for part, value in zip(numbers.chunk(len(values), dim=1), values, strict=True):
                change(part, value)
        return numbers

    def limits(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns the numbers of black and of white, each (1 or channels, 1, 1)."""
        mean, deviation = (
            torch.tensor(values, device=device)[:, None, None] for values in (self.mean, self.deviation)
        )
        return -mean / deviation, (1 - mean) / deviation

    def record(self) -> str:
        """Says for the record of a run what is otherwise than by default; empty where nothing is."""
        if self == BY_DEFAULT:
            return ""
        mean, deviation = (", ".join(f"{value:.3g}" for value in values) for values in self[:2])
        order = ", blue first" if self.blue_first else ""
        return f", pixels by its mean {mean} and deviation {deviation}{order}"


BY_DEFAULT = Colours()


def colours_of(folder: Path, channels: int) -> Colours:
    """Returns what the settings of a checkpoint's image processor say; the default where it has none.

    channels: of the pictures. Raises UserError where the settings cannot be read, or are no numbers for each
    channel.
    """
    for name in PICTURE_SETTINGS:
        if (file := folder / name).is_file():
            try:
                saved = read_json(file)
                return _colours(saved.get("image_processor", saved), channels)
            except (OSError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
                raise UserError(
                    f"model.path: {file} does not say how pixels become numbers ({error}); give image_mean "
                    f"and image_std, a number each or {channels}, or remove it for pixels from -1 to 1"
                ) from None
    return BY_DEFAULT


def _colours(saved: Mapping[str, Any], channels: int) -> Colours:
    white = 255 * float(saved.get("rescale_factor") or 1 / 255) if saved.get("do_rescale", True) else 255.0
    blue_first = bool(saved.get("do_flip_channel_order"))
    # MobileViT's, which alone has blue first, writes means that it does not take, and not that it does not.
    by_mean = saved.get("do_normalize", "image_mean" in saved and not blue_first)
    mean, deviation = (
        _of_channels(saved.get(key, 0.5) if by_mean else plain, channels, white)
        for key, plain in (("image_mean", 0.0), ("image_std", 1.0))
    )
    if 0.0 in deviation:
        raise ValueError("image_std is 0")
    return Colours(mean, deviation, blue_first)


def _of_channels(value: Any, channels: int, white: float) -> tuple[float, ...]:
    """Returns a number for all channels where they have one, else one for each, as shares of white."""
    values = tuple(float(each) for each in (value if isinstance(value, list) else [value]))
    if len(values) not in (1, channels) or not all(map(isfinite, values)):
        raise ValueError(f"{value} for {channels} channels")
    scaled = tuple(round(each / white, 9) for each in values)
    return scaled if len({*scaled}) > 1 else scaled[:1]
