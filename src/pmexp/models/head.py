"""Puts the head of a checkpoint into the order of the dataset's classes, where both have them by name."""

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from pmexp.shown import few

log = logging.getLogger(__name__)


def saved_class(auto: Any, hf_config: PretrainedConfig, saved: Mapping[str, Any]) -> type[PreTrainedModel]:
    """Returns the class that `auto` has for an architecture: where there are several, as for DeiT with and
    without a teacher, that which the checkpoint was saved from, and else the first.

    auto: one of transformers' AutoModelFor... classes. saved: what the checkpoint's config.json holds.
    """
    classes: Any = auto._model_mapping[type(hf_config)]
    if not isinstance(classes, tuple):
        classes = (classes,)
    named = saved.get("architectures") or ()
    chosen: type[PreTrainedModel] = next((cls for cls in classes if cls.__name__ in named), classes[0])
    return chosen


def fitted_to(classes: Sequence[str], module: PreTrainedModel, saved: Mapping[str, Any], folder: Path) -> str:
    """Puts the rows of a checkpoint's head into the order of `classes`, and says so for the run's record.

    Names count as one but for upper and lower case. Where they are others, the head stays as it is, which is
    said too; nothing is where the checkpoint names no classes.

    module: has the head of the checkpoint. saved: what the config.json of `folder` holds.
    """
    own = _named_classes(saved)
    if len(own) != len(classes) or (same := [name.lower() for name in classes]) == (
        places := [name.lower() for name in own]
    ):
        return ""
    if len({*places}) == len(places) and {*places} == {*same}:
        _reorder(module, [places.index(name) for name in same])
        return f", head of {few(own)} in the order of the dataset's classes"
    log.warning(
        "model.path: the head in %s is of the classes %s, in whose places the dataset has %s: it begins with "
        "what it has learned of those",
        folder,
        few(own),
        few(classes),
    )
    return f", head of {few(own)} in the places of {few(classes)}"


def _named_classes(saved: Mapping[str, Any]) -> list[str]:
    """Returns the names of a checkpoint's classes by their numbers; [] where it has none but LABEL_0, ..."""
    names = saved.get("id2label")
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(names))}:
        return []
    own = [str(names[str(number)]) for number in range(len(names))]
    return [] if all(re.fullmatch("LABEL_[0-9]+", name) for name in own) else own


def _reorder(module: PreTrainedModel, order: list[int]) -> None:
    """Makes row `order[n]` of the weights whose size is the number of classes their row n."""
    more = copy.deepcopy(module.config)
    more.num_labels = len(order) + 1
    with torch.device("meta"):
        larger = dict(type(module)(more).named_parameters())
    with torch.no_grad():
        for name, weight in module.named_parameters():
            for axis, (size, other) in enumerate(zip(weight.shape, larger[name].shape, strict=True)):
                if size != other:
                    weight.copy_(weight.index_select(axis, torch.tensor(order)))
