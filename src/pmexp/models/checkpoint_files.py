"""Reads the files of a checkpoint's folder, and no setting in them that names code or other files.

Code, kernels, adapters or files elsewhere that a folder may name are neither read nor run: each file is found
by its own name here, and no library is handed the folder.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pmexp.datasets.digest import of_content
from pmexp.errors import UserError, why_unread

# Formats of other frameworks and pickles beside a safetensors file are neither fetched nor read.
PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin")

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
PICTURE_SETTINGS = ("preprocessor_config.json", "processor_config.json")  # the first that is there counts
_TOKENIZER = (
    "*.txt",
    "*.model",
    "tokenizer*.json",
    "vocab*.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
NO_VOCABULARY = "it has no vocabulary: tokenizer.json, vocab.txt, vocab.json with merges.txt, or spm.model"
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_TOKENIZER_WORDS = (  # their values are texts, lists or mappings; any other such value may be a path
    "added_tokens_decoder", "additional_special_tokens", "errors", "extra_special_tokens", "langs",
    "language_codes", "model_input_names", "never_split", "padding_side", "source_lang", "src_lang",
    "subword_tokenizer_type", "target_lang", "tgt_lang", "tokenizer_class", "truncation_side", "vocab_type",
    "word_tokenizer_type",
)  # fmt: skip


def check_folder(folder: Path) -> None:
    """Raises UserError where a file that would be read lies elsewhere, or is an adapter of other weights.

    The links of the hub's cache, from a snapshot to the blobs beside it, are its own files.
    """
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"model.path: {folder} holds a peft adapter, which changes weights that lie elsewhere; "
            "merge it into its model (merge_and_unload), and give the folder that save_pretrained writes"
        )
    own = folder.resolve()
    places = [own, own.parents[1] / "blobs"] if own.parent.name == "snapshots" else [own]
    for file in (file for pattern in PATTERNS for file in sorted(folder.glob(pattern))):
        target = file.resolve()
        if not any(target.is_relative_to(place) for place in places):
            raise UserError(
                f"model.path: {file} is a link to {target}, outside of the folder; put a copy in its place"
            )


def read_json(file: Path) -> dict[str, Any]:
    """Returns the JSON object that `file` holds. Raises ValueError where it holds none."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return settings


def digest_of_folder(folder: Path) -> str:
    """Returns a digest of those files of a checkpoint that are read; empty where the folder is gone.

    For a snapshot in the hub's cache it is the commit. Raises UserError where a file cannot be read.
    """
    if folder.parent.name == "snapshots":
        return f"commit:{folder.name}"
    try:
        return of_content(_read_files(folder)) if folder.is_dir() else ""
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"model.path: {folder} cannot be read ({why_unread(error)}); mend or replace it"
        ) from None


def _read_files(folder: Path) -> list[Path]:
    weights = next((file for name in _WEIGHTS if (file := folder / name).is_file()), None)
    shards = _shards(weights) if weights and weights.name.endswith(".index.json") else []
    settings = (folder / name for name in ("config.json", *PICTURE_SETTINGS))
    named = {*settings, *(file for pattern in _TOKENIZER for file in folder.glob(pattern)), *shards}
    return [file for file in named | ({weights} if weights else set()) if file.is_file()]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the folder by their names, on the CPU and as they were saved.

    Raises FileNotFoundError where there are none, and ValueError where a file holds something else.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            files = _shards(folder / name) if name.endswith(".index.json") else [folder / name]
            return {key: tensor for file in files for key, tensor in _tensors(file).items()}
    raise FileNotFoundError("it has no model.safetensors and no pytorch_model.bin")


def _shards(index: Path) -> list[Path]:
    names = sorted(set(read_json(index)["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index.name} names {name}, which is no file of this folder")
    return [index.parent / name for name in names]


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{file.name} is no mapping of names to tensors")
    return tensors


@contextmanager
def tokenizer_files(folder: Path) -> Iterator[Path]:
    """A folder of the tokenizer's files alone, whose settings name neither code nor files.

    Raises FileNotFoundError where there are none but settings, and ValueError for options of another library.
    """
    files = {file for pattern in _TOKENIZER for file in folder.glob(pattern)}
    if all(file.name in _TOKENIZER_SETTINGS for file in files):
        raise FileNotFoundError(NO_VOCABULARY)
    with TemporaryDirectory(prefix="pmexp-tokenizer-") as scratch:
        for file in files:
            copy = Path(scratch) / file.name
            if file.name in _TOKENIZER_SETTINGS:
                copy.write_text(json.dumps(_data_alone(read_json(file))), encoding="utf-8")
            else:
                copy.symlink_to(file.resolve())
        yield Path(scratch)


def _data_alone(settings: dict[str, Any]) -> dict[str, Any]:
    if options := [key for key, value in settings.items() if key.endswith("_kwargs") and value]:
        raise ValueError(f"{options[0]} of its settings may name files, and is not read")
    return {
        key: value
        for key, value in settings.items()
        if key.endswith("_token") or key in _TOKENIZER_WORDS or not isinstance(value, str | list | dict)
    }
