"""Says how long an input may be and is made, and makes position tables longer by repeating trained rows."""

import sys

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from pmexp.config import ModelConfig
from pmexp.errors import UserError

_TABLE = "position_embeddings"


def extend(module: PreTrainedModel, model: ModelConfig) -> str:
    """Gives `module` `model.positions` positions, its own table repeated. Says so for the run's record.

    Raises UserError where there is no table, or where it is as long already.
    """
    assert model.positions is not None
    before = limit(module)
    tables = [
        parent for parent in module.modules() if isinstance(getattr(parent, _TABLE, None), nn.Embedding)
    ]
    if not tables:
        raise UserError(
            f"model.positions: model={model.name} has no table of positions to repeat; leave it null"
        )
    if model.positions <= before:
        raise UserError(
            f"model.positions: {model.positions} is no more than the {before} of model={model.name}; "
            "leave it null"
        )
    for parent in tables:
        _repeat(parent, model.positions)
    module.config.max_position_embeddings = model.positions + _first(getattr(tables[0], _TABLE))
    return f"positions {before} repeated to {model.positions}"


def limit(module: PreTrainedModel) -> int:
    """The longest input of a text model, in tokens; beyond all lengths where positions are relative (T5)."""
    for parent in module.modules():
        table = getattr(parent, _TABLE, None)
        if isinstance(table, nn.Embedding):
            return table.num_embeddings - _first(table)
    stated = getattr(module.config, "max_position_embeddings", None)
    return int(stated) if stated and stated > 0 else sys.maxsize


def unused(hf_config: PretrainedConfig) -> int:
    """Returns how many rows of the architecture's table of positions hold none."""
    with torch.device("meta"):
        return int(hf_config.max_position_embeddings) - limit(AutoModel.from_config(hf_config))


def computed_length(length: int, module: nn.Module) -> int:
    """Returns the tokens that the layers of `module` compute with for an input of `length` tokens.

    Longformer pads its input to a multiple of its widest attention window.
    """
    windows = getattr(getattr(module, "config", None), "attention_window", None) or 1
    widest = max(windows) if isinstance(windows, list | tuple) else int(windows)
    return -(-length // widest) * widest


def check(length: int, module: PreTrainedModel, model: ModelConfig, key: str = "dataset.max_length") -> None:
    """Raises UserError for texts of more tokens, as `key` has them, than the model has positions."""
    longest = limit(module)
    if length > longest:
        raise UserError(
            f"{key}: {length} exceeds the {longest} positions of model={model.name}; "
            f"choose at most {longest}, or model.positions={length} to repeat the trained ones"
        )


def _first(table: nn.Embedding) -> int:
    """Returns the row of position 0: RoBERTa and Longformer use those up to the padding's for no position."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


def _repeat(parent: nn.Module, positions: int) -> None:
    table: nn.Embedding = getattr(parent, _TABLE)
    first = _first(table)
    whole = table.weight.detach()
    if isinstance(whole, DTensor):
        whole = whole.full_tensor()
    unused, trained = whole.split([first, table.num_embeddings - first])
    times = -(-positions // len(trained))
    weight = torch.cat([unused, trained.repeat(times, 1)[:positions]])
    setattr(parent, _TABLE, nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=table.padding_idx))
    for name, buffer in list(parent.named_buffers(recurse=False)):  # such as position_ids and token_type_ids
        if name == "position_ids":
            positions_of_rows = torch.arange(len(weight), device=buffer.device)
            parent.register_buffer(name, positions_of_rows.expand(1, -1), persistent=False)
        elif name == "token_type_ids":
            parent.register_buffer(name, buffer.new_zeros(1, len(weight)), persistent=False)
