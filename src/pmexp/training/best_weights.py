"""Keeps the weights of the best evaluation so far: ``checkpoints/best-00000090.safetensors``, by step.

Several may be there while a run goes on: one resumed from an older checkpoint needs the best of that time.
"""

import os
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pmexp.errors import UserError
from pmexp.run_folder.files import sync_directory
from pmexp.run_folder.folder import RunFolder
from pmexp.systems.engines import Engine
from pmexp.systems.engines.base import Weights, trained_weights


def save(folder: RunFolder, engine: Engine, step: int, needed: Collection[int]) -> None:
    """Writes the weights of `step` and removes those of all steps but it and `needed`.

    Every rank calls it, rank 0 writes.
    """
    weights = engine.weights()
    if not engine.ranks.is_first:
        return
    file = _file(folder, step)
    scratch = file.with_suffix(".partial")
    names = set(_first_names(weights).values())  # weights that two modules share are written once
    save_file({name: weights[name].contiguous() for name in names}, scratch)
    with scratch.open("rb") as stream:
        os.fsync(stream.fileno())
    scratch.replace(file)
    sync_directory(file.parent)  # before a checkpoint says that these are the best
    keep = {_file(folder, kept) for kept in (step, *needed)}
    for other in folder.checkpoints.glob("best-*.safetensors"):
        if other not in keep:
            other.unlink()


def load(folder: RunFolder, engine: Engine, step: int) -> None:
    """Loads the weights of `step`, on every rank. Raises UserError where they cannot be read."""
    engine.ranks.wait()  # rank 0 writes the file
    file = _file(folder, step)
    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{file}: the weights of the best evaluation cannot be read ({error}); remove {folder.path} "
            "and run again"
        ) from None
    first = _first_names(trained_weights(engine.module))
    engine.load_weights({name: saved[name if name in saved else first[name]] for name in first})


def _first_names(weights: Weights) -> dict[str, str]:
    """Maps the name of every weight to the first name of the same tensor."""
    first: dict[tuple[int, torch.Size], str] = {}
    names = {}
    for name, tensor in weights.items():
        names[name] = first.setdefault((tensor.data_ptr(), tensor.shape), name) if tensor.numel() else name
    return names


def _file(folder: RunFolder, step: int) -> Path:
    return folder.checkpoints / f"best-{step:08d}.safetensors"
