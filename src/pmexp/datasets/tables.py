"""Reads the tables of a dataset's splits, from the Hugging Face hub or from a local folder of files.

The files of a folder are named after their splits (SPLITS) and formats; one file is one split. What else lies
there, and what other splits a hub dataset has, is left out and named.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmexp.config import DatasetConfig, DatasetKind
from pmexp.datasets.base import Dataset, Split, carve
from pmexp.datasets.files import FORMATS, read
from pmexp.datasets.labels import is_unicode
from pmexp.datasets.separated import quotes_are_marks
from pmexp.errors import UserError, why_unread

SPLITS = {"train": ("train",), "val": ("validation", "valid", "dev", "val"), "test": ("test",)}
_NAMED = 8  # files that were left out are named, the others counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tables:
    """Holds the rows of each split as they were read, before they are samples."""

    splits: dict[str, Any]  # by train, val and test, as far as there are
    origin: str  # the folder, or the hub dataset with its commit and its place in the local cache
    places: dict[str, str]  # by split: the file, or the hub dataset
    digest: str = ""  # the commit of a hub dataset
    left_out: str = ""  # files or splits that were not taken: how many and which

    def dataset(self, config: DatasetConfig, splits: Mapping[str, Split], classes: list[str]) -> Dataset:
        """The dataset of the splits that were made of these; without validation one is carved off train."""
        train, val = splits["train"], splits.get("val")
        if val is None:
            told = f"; {self.left_out}" if self.left_out else ""
            log.log(
                logging.WARNING if told else logging.INFO,
                "dataset=%s: has no validation split, and %g of train is taken for it%s",
                config.name,
                config.val_fraction,
                told,
            )
            train, val = carve(train, config.val_fraction, "dataset.val_fraction", classes)
        test = splits.get("test")
        return Dataset(train, val, test, classes, None, self.origin, self.digest, self.left_out)


def tables(
    config: DatasetConfig,
    formats: Sequence[str] = FORMATS,
    empty_cell: str | None = None,
    files: Callable[[Path], dict[str, Path]] | None = None,
) -> Tables:
    """The splits, of which train is there and none is empty. Raises UserError when they cannot be had.

    empty_cell: what a cell of a csv or tsv file without any character is.
    files: finds the table of each split in a folder that holds more than tables, so that what else lies there
        is not left out; by default `split_files`.
    """
    _refuse_twice(config)
    loaded = _from_folder(config, formats, empty_cell, files) if config.path else _from_hub(config)
    if "train" not in loaded.splits:
        raise UserError(
            f"dataset={config.name}: {config.path or config.hub_id} has no train split; "
            f"put train.{formats[0]} (or another of {', '.join(formats)}) there"
            + (f"; {loaded.left_out}" if loaded.left_out else "")
        )
    for split, table in loaded.splits.items():
        if not len(table):
            raise UserError(f"dataset={config.name}: the {split} split ({loaded.places[split]}) has no rows")
    if loaded.left_out:
        log.info("dataset=%s: %s", config.name, loaded.left_out)
    return loaded


def _refuse_twice(config: DatasetConfig) -> None:
    """Raises UserError for a column that would be read for two things, as a text and its own answer."""
    labels = [config.label_column] if config.kind in (DatasetKind.text, DatasetKind.tagged) else []
    names = Counter([*config.text_columns, *labels])
    if twice := [name for name, count in names.items() if count > 1]:
        places = "label_column names it too" if twice[0] in labels else "it stands there twice"
        raise UserError(
            f"dataset.text_columns: {twice[0]!r} cannot be two things ({places}); name each column once"
        )


def column(config: DatasetConfig, table: Any, name: str, key: str, place: str = "") -> Any:
    """One column of a split. Raises UserError, with `key` and `place`, where it has none of this name."""
    if name not in table.column_names:
        names = table.column_names
        other = next((mark for mark in ",;|\t" if len(names) == 1 and mark in names[0]), "")
        raise UserError(
            f"{key}: {name!r} is not a column of the {table.split} split of dataset={config.name}"
            f"{f' ({place})' if place else ''}; it has {', '.join(names)}"
            + (f": are its cells separated by {other!r}? csv takes ',' and tsv tabs" if other else "")
        )
    return table[name]


def class_names(table: Any, name: str) -> list[str]:
    """Returns the names of the numbers in a column of classes, or of lists of classes; [] where it has none.

    The `datasets` library keeps them, on the hub and in parquet files.
    """
    feature = table.features.get(name)
    return list(getattr(getattr(feature, "feature", feature), "names", None) or [])


def texts(config: DatasetConfig, tables: Tables, split: str, name: str) -> list[str]:
    """A column of text. Raises UserError, with file and row, for a cell that is missing or no text.

    name: `a.b` is the text under b of the mappings in column a, unless there is a column of that name.
    """
    place = tables.places[split]
    cells: list[str] = _cells(config, tables.splits[split], name, place)
    for row, cell in enumerate(cells, start=1):
        if isinstance(cell, str) and (cell.isascii() or is_unicode(cell)):
            continue
        fault = "is missing" if cell is None else f"is no text but of type {type(cell).__name__}"
        raise UserError(
            f"dataset.text_columns: {name} in the {split} split ({place}, row {row}) "
            f"{'holds half of a character' if isinstance(cell, str) else fault}; "
            "write text there, or leave the row out"
        )
    return cells


def _cells(config: DatasetConfig, table: Any, name: str, place: str) -> list[Any]:
    whole, _, member = name.partition(".")
    mapped = bool(member) and name not in table.column_names and whole in table.column_names
    cells: list[Any] = column(config, table, whole if mapped else name, "dataset.text_columns", place)[:]
    return [cell.get(member) if isinstance(cell, dict) else None for cell in cells] if mapped else cells


def folder_of(path: str) -> Path:
    """The folder that `dataset.path` means: a leading ~/ is the home, every other letter names itself."""
    return Path(path).expanduser() if path == "~" or path.startswith("~/") else Path(path)


def split_files(folder: Path, formats: Sequence[str]) -> dict[str, Path]:
    """The file of each split that is there. Raises UserError where two are of one split."""
    chosen = {}
    for split, stems in SPLITS.items():
        files = [f for stem in stems for kind in formats if (f := folder / f"{stem}.{kind}").is_file()]
        if len(files) > 1:
            raise UserError(
                f"dataset.path: {files[0]} and {files[1]} both claim to be the {split} split; keep one"
            )
        if files:
            chosen[split] = files[0]
    return chosen


def _from_folder(
    config: DatasetConfig,
    formats: Sequence[str],
    empty_cell: str | None,
    of_splits: Callable[[Path], dict[str, Path]] | None,
) -> Tables:
    folder = folder_of(str(config.path))
    try:
        entries = {entry.name for entry in os.scandir(folder)}
    except (OSError, ValueError) as error:
        why = "" if isinstance(error, FileNotFoundError) else f" that can be read ({why_unread(error)})"
        raise UserError(
            f"dataset.path: {folder} is not a folder{why}; put train.{formats[0]}, validation.{formats[0]} "
            f"and test.{formats[0]} (or {', '.join(formats[1:])}) there"
        ) from None
    files = of_splits(folder) if of_splits else split_files(folder, formats)
    marks = quotes_are_marks(file for file in files.values() if file.suffix == ".tsv")
    splits = {split: read(file, split, marks, empty_cell) for split, file in files.items()}
    left_out = _left_out(
        set() if of_splits else entries,
        {file.name for file in files.values()},
        f"entries of {folder}",
        f"files of type {'|'.join(formats)} are taken that are named",
    )
    return Tables(splits, str(folder), {s: str(file) for s, file in files.items()}, left_out=left_out)


def _left_out(names: set[str], taken: set[str], kind: str, rule: str) -> str:
    """Says which `names`, entries of a `kind`, were not `taken` and by which `rule`; empty where all were."""
    if not (rest := sorted(names - taken)):
        return ""
    few = rest[:_NAMED] + (["..."] if len(rest) > _NAMED else [])
    shown = ", ".join(name.encode("utf-8", "backslashreplace").decode() for name in few)
    stems = ", ".join("|".join(stems) for stems in SPLITS.values())
    return f"left out {len(rest)} of the {len(names)} {kind}: {shown} ({rule} {stems})"


def _why_out_of_reach(error: Exception) -> str:
    reason = why_unread(error)
    says_offline = "OfflineModeIsEnabled" in reason
    if says_offline or os.environ.get("HF_HUB_OFFLINE"):
        return "offline mode is on" if says_offline else f"offline mode is on; {reason}"
    return reason


def _from_hub(config: DatasetConfig) -> Tables:
    hub_id = _hub_id(config)
    import datasets

    # The log of the hub's retries says nothing that the error below does not.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        loaded = datasets.load_dataset(hub_id, config.hub_config, revision=config.revision)
    except Exception as error:
        raise UserError(
            f"dataset={config.name}: hub dataset {config.hub_id} cannot be had ({_why_out_of_reach(error)}); "
            f"fetch it with network (pmexp data dataset={config.name}), or set dataset.path to a folder of "
            "its train, validation and test"
        ) from None
    chosen = {split: [stem for stem in stems if stem in loaded] for split, stems in SPLITS.items()}
    for split, stems in chosen.items():
        if len(stems) > 1:
            raise UserError(
                f"dataset={config.name}: {stems[0]} and {stems[1]} of hub dataset {config.hub_id} both claim "
                f"to be the {split} split; put the right one in a folder and set dataset.path=<folder>"
            )
    splits = {split: loaded[stems[0]] for split, stems in chosen.items() if stems}
    place = Path(next(iter(loaded.values())).cache_files[0]["filename"]).parent
    commit = _commit(config, place)
    taken = {stem for stems in chosen.values() for stem in stems}
    return Tables(
        splits,
        f"hub {config.hub_id} at {commit} in {place}",
        dict.fromkeys(splits, f"hub {config.hub_id}"),
        f"commit:{commit}",
        _left_out(set(loaded), taken, f"splits of hub {config.hub_id}", "those are taken that are named"),
    )


def _hub_id(config: DatasetConfig) -> str:
    """The id on the hub. Raises UserError for one that the library would take for a path here."""
    hub_id = config.hub_id
    if not hub_id:
        raise UserError(f"dataset.path: dataset={config.name} has no hub_id; set dataset.path=<folder>")
    if os.path.lexists(hub_id):
        raise UserError(
            f"dataset.hub_id: {hub_id} is also a file or folder here, which would be taken for it; set "
            "dataset.path to read that, or run in another folder to have the hub's"
        )
    return hub_id


def _commit(config: DatasetConfig, place: Path) -> str:
    """The commit that was loaded, which names its folder in the cache of `datasets`.

    Without network that library takes the latest cached commit, whatever revision was asked for: a pinned
    commit is compared here.
    """
    pinned = config.revision if re.fullmatch("[0-9a-f]{7,40}", config.revision or "") else None
    if pinned and not place.name.startswith(pinned):
        raise UserError(
            f"dataset.revision: {pinned} of {config.hub_id} cannot be had, the local cache holds "
            f"{place.name}; on a machine with network run pmexp data dataset={config.name} "
            f"dataset.revision={pinned}"
        )
    return place.name
