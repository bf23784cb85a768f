"""Finds inputs that a model of transformers takes, by the names of its forward's arguments."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.zoo.tiny import PIXELS, POSITIONS, TEXT_IDS, WIDTH

SAMPLES, LENGTH = 2, 12
_CONFIGURATIONS = ("vision_config", "audio_config", "encoder", "text_config")


def inputs_of(model: nn.Module) -> dict[str, Any]:
    """Returns the first of the inputs to try that a forward of `model` takes.

    Raises ValueError with what the first of them met, or where the forward has no argument that is known.
    """
    reason = f"its forward takes {', '.join(inspect.signature(model.forward).parameters)}"
    for place, inputs in enumerate(_candidates(model)):
        try:
            with torch.no_grad():
                model(**inputs)
            return inputs
        except Exception as error:
            if place == 0:
                reason = f"with {', '.join(inputs)}: {error}"
    raise ValueError(reason)


def _candidates(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Yields inputs to try, the most complete first."""
    parameters = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", "")
    known = [name for name in parameters if name in _MADE]
    of_users = [name for name in known if name not in _OF_MODULES]
    few = [name for name in known if name in (main, "decoder_input_ids")]
    others = {"use_cache": False} if "use_cache" in parameters else {}
    for names in dict.fromkeys(map(tuple, (of_users, few, [main] * (main in known), known))):
        for tensors in product(*(_MADE[name](model) for name in names)) if names else ():
            yield dict(zip(names, tensors, strict=True)) | others


def _ids(length: int = LENGTH) -> Tensor:
    ids = (torch.arange(SAMPLES * length) * 7 % 50 + 3).view(SAMPLES, length)
    ids[:, -1] = TEXT_IDS["eos_token_id"]
    return ids


def _numbers(*size: int) -> Tensor:
    return torch.linspace(-9, 9, SAMPLES * torch.Size(size).numel()).sin().view(SAMPLES, *size)


def _pictures(model: nn.Module) -> list[Tensor]:
    channels = _setting(model, "num_channels", "in_channels", "in_chans", default=3)
    size = _setting(model, "image_size", default=PIXELS)
    picture = channels, size, size
    video = _setting(model, "num_frames", default=4), *picture
    return [
        _numbers(*picture),
        _numbers(channels, 2 * size, 2 * size),
        _numbers(*video),
        _numbers(1, *picture),
    ]


def _spectrum(model: nn.Module) -> list[Tensor]:
    names = "num_mel_bins", "input_feat_per_channel", "feature_size", "hidden_size", "input_dim"
    bands = _setting(model, *names, default=8)
    longest = 2 * _setting(model, "max_source_positions", default=32)
    return [_numbers(bands, longest), _numbers(64, bands), _numbers(1, 64, bands)]


def _hidden(model: nn.Module) -> list[Tensor]:
    return [_numbers(LENGTH, _setting(model, "hidden_size", default=WIDTH))]


def _setting(model: nn.Module, *names: str, default: int) -> int:
    """The first of these numbers that the model's configuration has, or one inside of it."""
    config = getattr(model, "config", None)
    for part in (config, *(getattr(config, inner, None) for inner in _CONFIGURATIONS)):
        for name in names:
            if isinstance(value := getattr(part, name, None), int):
                return value
    return default


# Hidden states come from other modules.
_OF_MODULES: Mapping[str, Callable[[nn.Module], list[Tensor]]] = dict.fromkeys(
    ("hidden_states", "inputs_embeds", "encoder_hidden_states"), _hidden
)
_MADE: Mapping[str, Callable[[nn.Module], list[Tensor]]] = {
    "input_ids": lambda _: [_ids(), _ids(POSITIONS)],
    "decoder_input_ids": lambda _: [_ids()],
    "pixel_values": _pictures,
    "pixel_values_videos": _pictures,
    "input_values": lambda model: [_numbers(2000), *_spectrum(model), _numbers(1, 2000)],
    "input_features": _spectrum,
    "bbox": lambda _: [torch.tensor([1, 2, 5, 9]).expand(SAMPLES, LENGTH, 4)],
    **_OF_MODULES,
}
