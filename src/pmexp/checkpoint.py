"""The resume checkpoint of a run: its training state and the length of its journal at that moment."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pmexp.run_folder import RunFolder
from pmexp.systems.engines import Engine
from pmexp.systems.engines.base import Weights

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


def save_best(folder: RunFolder, engine: Engine) -> None:
    """Keeps the weights of the best evaluation so far. Every rank calls it, rank 0 writes."""
    weights = engine.weights()
    if engine.ranks.is_first:
        file = _best_file(folder)
        scratch = file.with_suffix(".partial")
        names = set(_first_names(weights).values())  # weights that two modules share are written once
        save_file({name: weights[name].contiguous() for name in names}, scratch)
        scratch.replace(file)


def load_best(folder: RunFolder, engine: Engine) -> None:
    engine.ranks.wait()  # for rank 0's file
    saved = load_file(_best_file(folder))
    first = _first_names(engine.module.state_dict())
    engine.load_weights({name: saved[name if name in saved else first[name]] for name in first})


def _first_names(weights: Weights) -> dict[str, str]:
    """Of every weight the first name of the same tensor."""
    first: dict[tuple[int, torch.Size], str] = {}
    names = {}
    for name, tensor in weights.items():
        names[name] = first.setdefault((tensor.data_ptr(), tensor.shape), name) if tensor.numel() else name
    return names


def _resume_file(folder: RunFolder) -> Path:
    return folder.checkpoints / "resume" / "training.pt"


def _best_file(folder: RunFolder) -> Path:
    return folder.checkpoints / "best.safetensors"
