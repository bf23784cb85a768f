"""Answers what an architecture of transformers is: its class, its own fields, its rates, what it serves."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModel, PretrainedConfig

from pmexp.config import Objective
from pmexp.config.kinds import rates_among
from pmexp.errors import UserError
from pmexp.models.objectives import AUTO_CLASSES

# Names that code of architectures has too, and that are a run's own choice.
_OF_A_RUN = {
    *("attn_implementation", "experts_implementation", "gradient_checkpointing", "num_labels", "torch_dtype"),
    *("pruned_heads", "quantization_config"),
}
_OLDER_ROTARY = {"rope_theta", "rope_scaling", "partial_rotary_factor"}  # which are rope_parameters now


def configuration_class(
    model_type: str, key: str = "model.architecture.model_type"
) -> type[PretrainedConfig]:
    """Returns transformers' class for configurations of this architecture. Raises UserError, with `key`, for
    one that is not there."""
    if not model_type:
        raise UserError(f"{key}: is missing; name the architecture, which nothing else says here")
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(model_type, list(CONFIG_MAPPING))
        raise UserError(
            f"{key}: {model_type!r} is no architecture of the transformers at hand"
            + (f"; did you mean {' or '.join(near)}?" if near else "; see its list of models")
        )
    cls: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    return cls


def own_fields(cls: type[PretrainedConfig]) -> set[str]:
    """Returns the fields of `cls` that describe an architecture.

    The fields that all models of transformers have, such as dtype and outputs, are a run's own choice.
    """
    return (set(cls().to_dict()) | set(cls.attribute_map)) - set(PretrainedConfig().to_dict())


def described(cls: type[PretrainedConfig], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a saved configuration describes an architecture, also in the configurations in it.

    These are its own fields, and what its code reads without declaring it, such as DeBERTa's position_buckets
    and names of older versions.
    """
    own, fields = own_fields(cls), {}
    undeclared = _words_in(Path(inspect.getfile(cls)).parent) - set(PretrainedConfig().to_dict()) - _OF_A_RUN
    if "rope_parameters" in own:
        undeclared |= _OLDER_ROTARY
    for key, value in saved.items():
        if key in cls.sub_configs and isinstance(value, dict):
            part = _class_of_part(cls.sub_configs[key], value)
            typed = {"model_type": value["model_type"]} if "model_type" in value else {}
            fields[key] = typed | described(part, value)
        elif key in own or key in undeclared:
            fields[key] = value
    return fields


@cache
def _words_in(folder: Path) -> set[str]:
    """Returns all words in the code of an architecture: its configuration and its models."""
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]
    return {word for text in texts for word in re.findall("[a-z]\\w*", text)}


def _class_of_part(part: Any, saved: Mapping[str, Any]) -> type[PretrainedConfig]:
    """Returns the class of a configuration inside of another; some say only there of which class it is."""
    is_open = not issubclass(part, PretrainedConfig)
    return configuration_class(str(saved.get("model_type")), "config.json") if is_open else part


def set_rates(
    hf_config: PretrainedConfig, hidden: float | None, attention: float | None, strict: bool
) -> None:
    """Sets the rates of dropout, where given, in `hf_config` and the configurations in it.

    strict: a rate of places that the architecture has no name for is a UserError.
    """
    names = [rates_among(_rates(part)) for part in _with_parts(hf_config)]
    for place, (key, rate) in enumerate((("hidden_dropout", hidden), ("attention_dropout", attention))):
        if rate is None:
            continue
        if strict and not any(of_part[place] for of_part in names):
            there = sorted({name for of_part in names for of_place in of_part for name in of_place})
            raise UserError(
                f"model.{key}: {type(hf_config).__name__} has no such rate; it has "
                f"{', '.join(there) or 'no rate of dropout'}; leave it null"
            )
        for part, of_part in zip(_with_parts(hf_config), names, strict=True):
            for name in of_part[place]:
                setattr(part, name, rate)


def rates_in(hf_config: PretrainedConfig) -> tuple[list[float], list[float]]:
    """Returns the rates of dropout of all places but attention, and those of attention."""
    hidden, attention = (
        [
            rate
            for part in _with_parts(hf_config)
            for name in rates_among(_rates(part))[place]
            if (rate := getattr(part, name)) is not None
        ]
        for place in (0, 1)
    )
    return hidden, attention


def _rates(config: PretrainedConfig) -> list[str]:
    """Returns the fields that are rates: null is one too, which stands for another rate."""
    fields = {name: value for name, value in config.to_dict().items() if not isinstance(value, dict)}
    return [name for name, value in fields.items() if value is None or isinstance(value, float | int)]


def _with_parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    yield config
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), PretrainedConfig):
            yield from _with_parts(part)


def vision_of(hf_config: PretrainedConfig) -> Any:
    """Returns the configuration of what looks at pictures, which lies inside of that of CLIP and its like."""
    return getattr(hf_config, "vision_config", hf_config)


def check_serves(auto: Any, hf_config: PretrainedConfig, objective: Objective) -> None:
    """Raises UserError where transformers has no class of this architecture for the objective."""
    if type(hf_config) in auto._model_mapping:
        return
    others = [each.name for each, mapped in AUTO_CLASSES.items() if type(hf_config) in mapped._model_mapping]
    raise UserError(
        f"dataset.objective: {objective.name} has no class of transformers for model_type="
        f"{hf_config.model_type} ({auto.__name__} knows none); "
        + (f"it serves {', '.join(others)} of texts" if others else "choose another architecture")
    )


def plain_parts(hf_config: PretrainedConfig) -> set[str]:
    """Returns the names of the parts that the architecture has without a head, for any task.

    Raises UserError for one that has no such class, as a pair of any encoder and any decoder.
    """
    if type(hf_config) not in AutoModel._model_mapping:
        raise UserError(
            f"model.path: a checkpoint of model_type={hf_config.model_type} is two models of other "
            "architectures, which is not supported; choose an architecture of its own, such as t5 or bart"
        )
    with torch.device("meta"):
        return {name for name, _ in AutoModel.from_config(hf_config).named_children()}
