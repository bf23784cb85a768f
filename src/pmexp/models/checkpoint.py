"""Where a checkpoint is: a local folder, or the hub's snapshot of it in the local cache."""

import logging
from pathlib import Path

from pmexp.config import ModelConfig
from pmexp.errors import UserError

# Formats of other frameworks and pickles beside a safetensors file are not fetched.
_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin"]


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
