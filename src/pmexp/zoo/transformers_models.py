"""Lists the models of transformers: each architecture without a head, and with those heads that drop."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pmexp.zoo.inputs import inputs_of
from pmexp.zoo.specimen import Made, NoSuchAttention, Specimen
from pmexp.zoo.tiny import VOCABULARY, tiny

LARGEST = 5_000_000  # parameters: a model that stays larger however it is configured takes too long
_HEADS = ("SEQUENCE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "CTC")  # those whose own code drops


def of_transformers() -> Iterator[Specimen]:
    """Yields a model without a head of each architecture, and with each head that drops."""
    mappings: dict[str, tuple[str, ...]] = {"MODEL_MAPPING": ("eager", "sdpa")}
    mappings |= {f"MODEL_FOR_{head}_MAPPING": ("eager",) for head in _HEADS}
    seen = set()
    for mapping, attentions in mappings.items():
        for kind, names in getattr(modeling_auto, f"{mapping}_NAMES").items():
            name = names if isinstance(names, str) else names[0]
            if name in seen or kind not in CONFIG_MAPPING:
                continue
            seen.add(name)
            for attention in attentions:
                yield Specimen(
                    name, "transformers", attention, partial(transformer, mapping, kind, attention)
                )


def transformer(mapping: str, kind: str, attention: str) -> Made:
    """Returns a tiny model of the architecture `kind`. Raises what transformers raises, or ValueError."""
    config = tiny(CONFIG_MAPPING[kind], attention)
    for name, value in {"pad_token_id": 0, "vocab_size": VOCABULARY}.items():
        if getattr(config, name, None) is None:  # heads ask for them
            setattr(config, name, value)
    classes = getattr(modeling_auto, mapping)[type(config)]
    cls: Any = classes[0] if isinstance(classes, tuple) else classes
    if attention == "sdpa" and not cls._supports_sdpa:
        raise NoSuchAttention(f"{cls.__name__} has no sdpa attention")
    with torch.device("meta"):
        parameters = sum(p.numel() for p in cls._from_config(config).parameters())
    if parameters > LARGEST:
        raise ValueError(f"stays large: {parameters:,} parameters")
    torch.manual_seed(0)
    model = cls._from_config(config).train()
    return model, inputs_of(model)
