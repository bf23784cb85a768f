"""Tables of a dataset's splits, from the Hugging Face hub or from a local folder of files."""

import csv
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmexp.config import DatasetConfig
from pmexp.errors import UserError, first_line

SPLITS = {"train": ("train",), "val": ("validation", "dev", "val"), "test": ("test",)}
FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
_BUILDERS = {"tsv": "csv", "jsonl": "json", "txt": "text"}
_LONGEST_REASON = 160  # characters of another library's message


@dataclass(frozen=True)
class Tables:
    splits: dict[str, Any]  # by train, val and test, as far as there are
    origin: str  # the folder, or the hub dataset with its commit and its place in the local cache


def tables(config: DatasetConfig, formats: Sequence[str] = FORMATS) -> Tables:
    """The splits, of which train is there. Raises UserError when they cannot be had."""
    found = _from_folder(config, formats) if config.path else _from_hub(config)
    if "train" not in found.splits:
        raise UserError(
            f"dataset={config.name}: {config.path or config.hub_id} has no train split; "
            f"put train.{formats[0]} (or another of {', '.join(formats)}) there"
        )
    return found


def column(config: DatasetConfig, table: Any, name: str, key: str) -> Any:
    """One column of a split. Raises UserError, which names `key`, where it has none of this name."""
    if name not in table.column_names:
        raise UserError(
            f"{key}: {name!r} is not a column of the {table.split} split of dataset={config.name}; "
            f"it has {', '.join(table.column_names)}"
        )
    return table[name]


def _from_folder(config: DatasetConfig, formats: Sequence[str]) -> Tables:
    folder = Path(str(config.path)).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"dataset.path: {folder} is not a folder; put train.{formats[0]}, validation.{formats[0]} and "
            f"test.{formats[0]} (or {', '.join(formats[1:])}) there"
        )
    import datasets

    splits = {}
    for split, stems in SPLITS.items():
        files = [f for stem in stems for kind in formats if (f := folder / f"{stem}.{kind}").is_file()]
        if len(files) > 1:
            raise UserError(
                f"dataset.path: {files[0]} and {files[1]} both claim to be the {split} split; keep one"
            )
        if files:
            kind = files[0].suffix[1:]
            options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {}
            try:
                splits[split] = datasets.load_dataset(
                    _BUILDERS.get(kind, kind), data_files={split: str(files[0])}, split=split, **options
                )
            except Exception as error:
                raise UserError(
                    f"dataset.path: {files[0]} cannot be read as {kind} ({_reason(error)})"
                ) from None
    return Tables(splits, str(folder))


def _from_hub(config: DatasetConfig) -> Tables:
    if not config.hub_id:
        raise UserError(f"dataset.path: dataset={config.name} has no hub_id; set dataset.path=<folder>")
    import datasets

    # its retries say nothing more than the error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        found = datasets.load_dataset(config.hub_id, config.hub_config, revision=config.revision)
    except Exception as error:
        offline = " (offline mode is on)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UserError(
            f"dataset={config.name}: hub dataset {config.hub_id} cannot be had{offline} ({_reason(error)}); "
            f"fetch it on a machine with network with python -m pmexp.data dataset={config.name}, or put its "
            "splits as train, validation and test in one folder and set dataset.path=<folder>"
        ) from None
    splits = {split: found[stem] for split, stems in SPLITS.items() for stem in stems if stem in found}
    place = Path(next(iter(found.values())).cache_files[0]["filename"]).parent
    return Tables(splits, f"hub {config.hub_id} at {_commit(config, place)} in {place}")


def _commit(config: DatasetConfig, place: Path) -> str:
    """The commit that was loaded, which names its folder in the cache of `datasets`.

    Without network that library takes the latest cached commit, whatever revision was asked for: a pinned
    commit is compared here.
    """
    pinned = config.revision if re.fullmatch("[0-9a-f]{7,40}", config.revision or "") else None
    if pinned and not place.name.startswith(pinned):
        raise UserError(
            f"dataset.revision: {pinned} of {config.hub_id} cannot be had, the local cache holds "
            f"{place.name}; on a machine with network run python -m pmexp.data dataset={config.name} "
            f"dataset.revision={pinned}"
        )
    return place.name


def _reason(error: Exception) -> str:
    return first_line(error)[:_LONGEST_REASON]
