"""Finds out whether padding changes what a model says of a text, and refuses it where nobody could tell."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from pmexp.config import Padding, RunConfig
from pmexp.errors import UserError
from pmexp.models.sample import output_of, unable

log = logging.getLogger(__name__)


def effect_of_padding(
    config: RunConfig, tokenizer: Any, module: PreTrainedModel, inputs: Mapping[str, Tensor]
) -> str:
    """Says for the record where one more padding token changes what the model says of a text by more than
    rounding; empty where it changes nothing, or the model takes no attention_mask.

    For XLNet, which looks at a text's end, such is padding behind it; for GPT-2 padding in front.

    inputs: of one text, (1, positions) int64 each, with or without its padding. Raises UserError for padding
    in front of texts, which moves them, and for padding by what stands beside a text.
    """
    mask = inputs.get("attention_mask")
    if mask is None or not mask.any():
        return ""
    in_front = tokenizer.padding_side == "left"
    filling = {"input_ids": tokenizer.pad_token_id}
    kept = mask[0] != 0
    if kept.all():  # there is room for padding without a token
        kept[1] = False
    text = {name: tensor[:, kept] for name, tensor in inputs.items()}
    places = (1, 0) if in_front else (0, 1)
    padded = {name: pad(tensor, places, value=filling.get(name, 0)) for name, tensor in text.items()}
    try:
        alone, beside = (
            output_of(module, each, lambda error: unable(config, module, error)).logits
            for each in (text, padded)
        )
    except UserError:  # it takes texts of one length alone, which is then the length of all
        return ""
    if beside.dim() == 3:  # a class for each token
        beside = beside[:, 1:] if in_front else beside[:, :-1]
    rounding = torch.finfo(alone.dtype).eps ** 0.5
    if (beside - alone).abs().max() <= rounding * alone.abs().max():
        return ""
    name, padding = type(module).__name__, config.dataset.padding
    if in_front:
        raise UserError(
            f"model.path: the tokenizer in {tokenizer.name_or_path} pads in front of the texts, and {name} "
            "counts padding as positions, so that its answers would depend on dataset.max_length; write "
            '"padding_side": "right" into tokenizer_config.json there'
        )
    if padding is not Padding.max:
        raise UserError(
            f"dataset.padding: {padding.name} pads a text by what stands beside it, and padding changes what "
            f"{name} says of it; choose max"
        )
    log.warning("model: padding changes what %s says of a text: scores depend on dataset.max_length", name)
    return "padding behind a text changes what it says"
