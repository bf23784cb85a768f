"""The resume checkpoint of a run: its training state and the length of its journal at that moment."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from pmexp.run_folder import RunFolder

log = logging.getLogger(__name__)


def save_resume(folder: RunFolder, state: dict[str, Any], journal_bytes: int) -> None:
    """Replaces the run's resume checkpoint; the one before stays whole until then."""
    file = _resume_file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".partial")
    with scratch.open("wb") as stream:
        torch.save({"training": state, "journal_bytes": journal_bytes}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(file)


def load_resume(folder: RunFolder) -> tuple[dict[str, Any], int] | None:
    """(training state, journal bytes); None where there is none, or, with a warning, no readable one."""
    file = _resume_file(folder)
    if not file.is_file():
        return None
    try:
        saved = torch.load(file, weights_only=True)
        return saved["training"], saved["journal_bytes"]
    except Exception as error:
        log.warning("checkpoint %s cannot be read (%s); the run starts anew", file, type(error).__name__)
        return None


def save_best(folder: RunFolder, module: nn.Module) -> None:
    """Keeps the weights of the best evaluation so far."""
    file = _best_file(folder)
    scratch = file.with_suffix(".partial")
    save_model(module, str(scratch))  # weights that two modules share are written once
    scratch.replace(file)


def load_best(folder: RunFolder, module: nn.Module) -> None:
    load_model(module, _best_file(folder))


def _resume_file(folder: RunFolder) -> Path:
    return folder.checkpoints / "resume" / "training.pt"


def _best_file(folder: RunFolder) -> Path:
    return folder.checkpoints / "best.safetensors"
