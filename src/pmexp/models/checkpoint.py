"""Checkpoints: a local folder, or the hub's snapshot of it in the local cache, and what is loaded from it."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoConfig, PreTrainedModel

from pmexp.config import ModelConfig, RunConfig
from pmexp.config.kinds import KINDS
from pmexp.errors import UserError, first_line
from pmexp.models.base import hf_fields

# Formats of other frameworks and pickles beside a safetensors file are not fetched.
_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin"]

_Loaded = TypeVar("_Loaded")


def locate(config: ModelConfig) -> Path:
    """The folder of `model.path` or of `model.hub_id`. Raises UserError when it cannot be had."""
    if config.path:
        folder = Path(config.path).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model.path: {folder} has no config.json; give a folder written by save_pretrained "
                "(config.json, weights and tokenizer files)"
            )
        return folder
    from huggingface_hub import snapshot_download

    assert config.hub_id is not None
    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # its retries say nothing more than the error
    try:
        return Path(snapshot_download(config.hub_id, revision=config.revision, allow_patterns=_PATTERNS))
    except Exception as error:
        raise UserError(
            f"model={config.name}: checkpoint {config.hub_id} is neither in the local hub cache nor to be "
            f"downloaded ({type(error).__name__}); download it on a machine with network and set "
            "model.path=<folder>, or train from random weights with model.pretrained=false"
        ) from None


def load_pretrained(
    auto: Any, folder: Path, config: RunConfig, classes: Sequence[str]
) -> tuple[PreTrainedModel, str]:
    """The model of `folder` with a head for our task, and the words that say where weights came from.

    auto: one of transformers' AutoModelFor... classes. Raises UserError when the folder holds another
    architecture or lacks weights outside the head.
    """
    kind = from_folder("configuration", folder, AutoConfig.from_pretrained).model_type
    wanted = KINDS[config.model.kind].model_type
    if kind != wanted:
        raise UserError(
            f"model.path: {folder} holds a model of type {kind}; model={config.model.name} is a {wanted}"
        )
    model, info = from_folder(
        "weights",
        folder,
        auto.from_pretrained,
        **hf_fields(config, len(classes)),
        ignore_mismatched_sizes=True,  # those of another task's classifier; any other is refused below
        output_loading_info=True,
    )
    mismatched = {entry[0] for entry in info["mismatched_keys"]}
    fresh = sorted(mismatched | set(info["missing_keys"]))
    unexpected = [name for name in fresh if not _in_head(name, model.base_model_prefix)]
    if unexpected:
        raise UserError(
            f"model.path: the weights in {folder} lack {unexpected[0]} or have it in another shape "
            f"({len(unexpected)} such); give a complete checkpoint"
        )
    return model, f"{folder}" + (f", random: {', '.join(fresh)}" if fresh else "")


def _in_head(name: str, encoder: str) -> bool:
    """Whether a pretrained encoder need not have this weight: it then starts from random values."""
    return not name.startswith(f"{encoder}.") or name.startswith(f"{encoder}.pooler.")


def from_folder(what: str, folder: Path, load: Callable[..., _Loaded], **options: Any) -> _Loaded:
    """`load(folder)` with whatever goes wrong as a UserError. Code that lies in the folder is not run."""
    try:
        return load(folder, trust_remote_code=False, **options)
    except Exception as error:
        raise UserError(f"model.path: the {what} in {folder} cannot be loaded: {first_line(error)}") from None
