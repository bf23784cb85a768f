"""Refuses a tokenizer that pads in front of texts for a model that counts the padding as positions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.models.sample import output_of, unable


def refuse_counted(
    config: RunConfig, tokenizer: Any, module: PreTrainedModel, inputs: Mapping[str, Tensor]
) -> None:
    """Raises UserError where one more padding token in front of a text changes what the model says of it by
    more than rounding: it then says something else for each `dataset.max_length`.

    inputs: of one text, (1, positions) int64 each, with or without its padding.
    """
    mask = inputs.get("attention_mask")
    if mask is None or not mask.any():
        return
    filling = {"input_ids": tokenizer.pad_token_id}
    text = {name: tensor[:, mask[0] != 0] for name, tensor in inputs.items()}
    padded = {name: pad(tensor, (1, 0), value=filling.get(name, 0)) for name, tensor in text.items()}
    alone, behind = (
        output_of(module, each, lambda error: unable(config, module, error)).logits for each in (text, padded)
    )
    if behind.dim() == 3:  # a class for each token
        behind = behind[:, 1:]
    rounding = torch.finfo(alone.dtype).eps ** 0.5
    if (behind - alone).abs().max() > rounding * alone.abs().max():
        raise UserError(
            f"model.path: the tokenizer in {tokenizer.name_or_path} pads in front of the texts, and "
            f"{type(module).__name__} counts padding as positions, so that its answers would depend on "
            'dataset.max_length; write "padding_side": "right" into tokenizer_config.json there'
        )
