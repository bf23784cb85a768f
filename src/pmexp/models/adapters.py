"""Puts low-rank adapters (LoRA) into a model by peft, and writes them as peft reads them.

All other weights are frozen, but for the head of a classifier, which starts from random values and trains.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pmexp.config import LANGUAGE, FrozenWeights, LoraConfig, Objective, RunConfig
from pmexp.errors import UserError, error_line
from pmexp.extras import need
from pmexp.models.architectures import plain_parts
from pmexp.shown import counted

FOLDER = "adapter"  # in a run's artifacts
_WEIGHTS = "adapter_model.safetensors"  # peft's name
_ADAPTER = "default"  # peft's name for an only one
_IN_FILE = "base_model.model."  # what peft puts in front of every name in the file


def adapt(module: PreTrainedModel, config: RunConfig) -> str:
    """Puts the adapters of `model.lora` into `module`, and freezes the rest; nothing where its rank is null.

    The adapters are drawn from torch's default generator. Returns what trains, for the run's record. Raises
    UserError where peft is not installed, or a target is no linear layer of the body.
    """
    lora = config.model.lora
    if lora.rank is None:
        return ""
    need("model.lora", "peft")
    import peft

    objective = config.dataset.objective
    has_head = objective is not Objective.seq2seq and objective not in LANGUAGE
    head = _head(module) if has_head else []
    layers = _chosen(module, lora, head)
    rate = lora.dropout if config.variant.p is None else config.variant.p
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=rate,
        target_modules=list(layers),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
        base_model_name_or_path=config.model.path or config.model.hub_id if config.model.pretrained else None,
        revision=config.model.revision,
    )
    try:
        peft.inject_adapter_in_model(settings, module, _ADAPTER)
    except ValueError as error:
        raise UserError(
            f"model.lora.targets: peft refuses some of these layers ({error_line(error)}); choose others"
        ) from None
    settings.modules_to_save = head or None  # whose weights lie in the file beside the adapters
    for name in head:
        module.get_submodule(name).requires_grad_(True)
    if lora.frozen_weights is FrozenWeights.bf16:
        for parameter in module.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    return _described(lora, rate, list(layers), head, peft.__version__)


def write_adapter(module: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, as `PeftModel.from_pretrained` reads them.

    weights: those that train, by their names in `module`.
    """
    import peft

    settings: Any = module.peft_config[_ADAPTER]  # type: ignore[index]
    own: dict[str, Tensor] = peft.get_peft_model_state_dict(
        module, dict(weights), _ADAPTER, save_embedding_layers=False
    )
    heads = tuple(f"{name}." for name in settings.modules_to_save or ())
    own |= {name: tensor for name, tensor in weights.items() if heads and name.startswith(heads)}
    folder.mkdir(exist_ok=True)
    save_file(
        {_IN_FILE + name: tensor.detach().cpu().contiguous() for name, tensor in own.items()},
        folder / _WEIGHTS,
        {"format": "pt"},
    )
    settings.inference_mode = True  # as peft's own: who loads it does not train it unasked
    settings.save_pretrained(folder)
    settings.inference_mode = False


def _head(module: PreTrainedModel) -> list[str]:
    """The parts with weights that stand beside the model's body."""
    parts = [(name, part) for name, part in module.named_children() if part is not module.base_model]
    body = plain_parts(module.config) if module.base_model is module else set()
    return [name for name, part in parts if name not in body and list(part.parameters())]


def _chosen(module: PreTrainedModel, lora: LoraConfig, head: Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers to adapt, by name. Raises UserError for a target that ends no layer's name."""
    body = "" if module.base_model is module else f"{module.base_model_prefix}."
    words = module.get_output_embeddings()
    layers: dict[str, nn.Module] = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and name.startswith(body)
        if layer is not words and name.partition(".")[0] not in head
    }
    if lora.targets is None:
        return layers
    for target in lora.targets:
        if not any(_ends(name, target) for name in layers):
            there = sorted({name.rpartition(".")[2] for name in layers})
            raise UserError(
                f"model.lora.targets: {target!r} is no linear layer of {type(module).__name__}'s body; "
                f"there are {', '.join(there)}"
            )
    return {name: layer for name, layer in layers.items() if any(_ends(name, t) for t in lora.targets)}


def _ends(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _described(
    lora: LoraConfig, rate: float, layers: Sequence[str], head: Sequence[str], version: str
) -> str:
    names = sorted({name.rpartition(".")[2] for name in layers})
    beside = f"; beside them {', '.join(head)}" if head else ""
    return (
        f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}, dropout {rate:g} on "
        f"{counted(len(layers), 'layer')} ({', '.join(names)}) by peft {version}{beside}"
    )
