"""Loads a dataset by a function of somebody's own, which `dataset.loader` names. Imports no torch."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pmexp.config import INPUTS_OF, DatasetConfig, Inputs, Objective
from pmexp.datasets.base import Dataset, Split
from pmexp.datasets.captioned import Captioned
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.errors import UserError
from pmexp.own_code import called
from pmexp.shown import class_of, counted

_LOADER, _OPTIONS = "dataset.loader", "dataset.options"
_INPUTS: dict[Inputs, tuple[type, str]] = {
    Inputs.images: (np.ndarray, "a NumPy array of (samples, channels, height, width) in float32 or uint8"),
    Inputs.symbols: (np.ndarray, "a NumPy array of (samples, length) in integers"),
    Inputs.texts: (list, "a list with a tuple of texts for each sample"),
    Inputs.image_texts: (Captioned, "pmexp.datasets.captioned.Captioned"),
}

_PIXELS = (np.float32, np.uint8)


def load(config: DatasetConfig) -> Dataset:
    """Returns what ``loader(config, **options)`` returns, a Dataset with samples as those of `dataset.kind`.

    Where it names neither origin nor digest they are the loader's path and the digest of the samples. Raises
    UserError where it cannot be had, fails, or returns something else.
    """
    assert config.loader is not None
    dataset = called(_LOADER, config.loader, (config,), config.options, _OPTIONS)
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"{_LOADER}: {config.loader}: returns {class_of(dataset)}; return a pmexp.datasets.base.Dataset"
        )
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        if isinstance(split, Split) and not hasattr(split.inputs, "__len__"):
            raise UserError(
                f"{_LOADER}: {config.loader}: its {name} has inputs {type(split.inputs).__name__}, which "
                "nobody can count; give all of them, as list(...) does"
            )
    if not isinstance(dataset.classes, list | tuple):
        raise UserError(
            f"{_LOADER}: {config.loader}: its classes are {class_of(dataset.classes)}; give a list of "
            "names, in the order of the labels"
        )
    for name in ("train", "val"):
        split = getattr(dataset, name)
        if not isinstance(split, Split) or not len(split):
            raise UserError(f"{_LOADER}: {config.loader}: its {name} has no samples; return a Split of some")
    for name in ("train", "val", "test"):
        if split := getattr(dataset, name):
            _check_inputs(config, name, split)
            _check_labels(config, name, split)
            _check_classes(config, name, split, len(dataset.classes))
    dataset = replace(
        dataset,
        train=_in_order(dataset.train),
        val=_in_order(dataset.val),
        test=_in_order(dataset.test) if dataset.test else None,
    )
    origin = dataset.origin or config.path or config.loader
    return replace(dataset, origin=origin, digest=dataset.digest or ("" if config.path else _digest(dataset)))


def _in_order(split: Split) -> Split:
    """The split with arrays that lie in memory as torch reads them: a reversed one does not."""
    arrays = {key: value for key, value in vars(split).items() if isinstance(value, np.ndarray)}
    return replace(split, **{key: np.ascontiguousarray(value) for key, value in arrays.items()})


def _check_inputs(config: DatasetConfig, name: str, split: Split) -> None:
    """Raises UserError for samples that are no such as the dataset's kind has, which no model would take."""
    if config.objective is Objective.token_classification or isinstance(split.inputs, TaggedWords):
        return  # which _check_labels asks for
    kind, wanted = _INPUTS[INPUTS_OF[config.kind]]
    is_lazy = kind is np.ndarray and hasattr(split.inputs, "take") and not hasattr(split.inputs, "__array__")
    given = type(split.inputs).__name__
    if isinstance(split.inputs, kind):
        given = _other_form(split.inputs, INPUTS_OF[config.kind])
    if given and not is_lazy:
        raise UserError(
            f"{_LOADER}: {config.loader}: its {name} has inputs {given}; give {wanted}, as "
            f"dataset.kind={config.kind.name} has"
        )


def _other_form(inputs: Any, kind: Inputs) -> str:
    """Says what form inputs of the right type have, if it is not that of their kind."""
    if isinstance(inputs, np.ndarray):
        if inputs.ndim != (4 if kind is Inputs.images else 2):
            return f"of shape {inputs.shape}"
        right = inputs.dtype in _PIXELS if kind is Inputs.images else inputs.dtype.kind in "iu"
        return "" if right else f"in {inputs.dtype}"
    for row, texts in enumerate(inputs if isinstance(inputs, list) else ()):
        if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
            return f"whose sample {row} is no tuple of texts ({type(texts).__name__})"
    return ""


def _check_labels(config: DatasetConfig, name: str, split: Split) -> None:
    """Raises UserError for labels that the objective's loss would take for something else."""
    if not isinstance(split.labels, np.ndarray):
        raise UserError(
            f"{_LOADER}: {config.loader}: its {name} has labels in {class_of(split.labels)}; give a "
            "NumPy array, as numpy.asarray(...) is"
        )
    is_number = split.labels.dtype.kind == "f"
    if (config.objective is Objective.regression) != is_number and len(split.labels):
        wanted = "float32 for a regression" if not is_number else f"int64 for {config.objective.name}"
        raise UserError(
            f"{_LOADER}: {config.loader}: its {name} has labels {split.labels.dtype}; give {wanted}"
        )
    if (config.objective is Objective.token_classification) != isinstance(split.inputs, TaggedWords):
        raise UserError(
            f"{_LOADER}: {config.loader}: its {name} has inputs {type(split.inputs).__name__}; give"
            " TaggedWords for token_classification, and for nothing else"
        )


def _check_classes(config: DatasetConfig, name: str, split: Split, classes: int) -> None:
    """Raises UserError for labels that are not one of the classes for each sample."""
    labels, said = split.labels, f"{_LOADER}: {config.loader}: its {name} has"
    if not len(labels) or config.objective is Objective.token_classification:
        return
    if len(labels) != len(split.inputs):
        raise UserError(
            f"{said} {counted(len(split.inputs), 'input')} and {counted(len(labels), 'label')}; give one "
            "label each"
        )
    if labels.dtype.kind != "f" and (labels.dtype != np.int64 or labels.min() < 0 or labels.max() >= classes):
        raise UserError(
            f"{said} labels {labels.dtype} of {labels.min()} to {labels.max()} for {classes} classes; give "
            f"int64 labels of 0 to {classes - 1}, and a name for each class"
        )


def files_of(folder: Path) -> list[str]:
    """Returns all files below a folder that a loader of one's own may read, without hidden ones, sorted."""
    files = []
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        files += [os.path.join(place, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _digest(dataset: Dataset) -> str:
    """The sha256 of the samples and labels of all splits; raises UserError for samples that are read late."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.val, dataset.test, dataset.unlabelled_test):
        for part in (split.inputs, split.labels) if split else ():
            for piece in _pieces(part):
                digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _pieces(part: Any) -> Iterable[bytes]:
    if isinstance(part, np.ndarray):
        yield f"{part.dtype}{part.shape}".encode()
        yield np.ascontiguousarray(part).tobytes()
    elif isinstance(part, list | TaggedWords):
        texts = (
            part if isinstance(part, list) else list(zip(part.sentences, map(list, part.tags), strict=True))
        )
        yield from (repr(each).encode("utf-8", "surrogateescape") for each in texts)
    else:
        raise UserError(
            f"{_LOADER}: its samples are read as they are asked for; give the Dataset a digest of their files"
        )
