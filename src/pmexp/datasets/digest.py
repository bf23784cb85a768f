"""Whether the data of a run is still what it was: digests of files, on record from a run's start on."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pmexp.config import DatasetConfig, DatasetKind, RunConfig
from pmexp.datasets import listops, reuters_r8
from pmexp.datasets.files import FORMATS
from pmexp.datasets.language import LINE_FORMATS
from pmexp.datasets.tables import SPLITS, folder_of, split_files
from pmexp.datasets.text_lines import reason
from pmexp.errors import UserError
from pmexp.run_folder import RunFolder


def digest_of(config: DatasetConfig) -> str:
    """Of the files that `dataset.path` names, by their content; empty where it names none.

    Of pictures, which are too many to read each time, by name and size. Raises UserError where two files are
    of one split, or one cannot be read.
    """
    folder = folder_of(config.path) if config.path else None
    return _DIGESTS[config.kind](folder) if folder and os.path.isdir(folder) else ""


def digest_where_it_lies(kind: DatasetKind, origin: str) -> str:
    """The same of the folder that data was fetched to or generated in."""
    return _DIGESTS[kind](Path(origin)) if kind in (DatasetKind.reuters_r8, DatasetKind.listops) else ""


def refuse_changed_data(runs: Sequence[RunConfig]) -> None:
    """Raises UserError where files are others by now than a run was made of that is finished, or has a
    checkpoint to go on from."""
    now: dict[str, dict[str, str]] = {}  # each file is read once
    said = []
    for run in runs:
        if before := RunFolder(run.folder).data_digests():
            named = repr((run.dataset, run.robustness.ood))
            now[named] = now.get(named) or _digests(run)
            said += [_difference(run, before, now[named])]
    if changed := [line for line in said if line]:
        raise UserError(changed[0] + (f" ({len(changed)} of {len(runs)} runs)" if len(runs) > 1 else ""))


def refuse_other_data(run: RunConfig, now: Mapping[str, str]) -> None:
    """Raises UserError where the data that was read, whose record is `now`, is not that of the checkpoint."""
    if said := _difference(run, RunFolder(run.folder).data_digests(), now):
        raise UserError(said)


def _digests(run: RunConfig) -> dict[str, str]:
    """By their keys in a run's record."""
    ood = run.robustness.ood
    return {"data_digest": digest_of(run.dataset), "ood_data_digest": digest_of(ood) if ood else ""}


def _difference(run: RunConfig, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What to say of data that has changed; empty where none has, or it is not to be known."""
    for key, dataset in (("data_digest", run.dataset), ("ood_data_digest", run.robustness.ood)):
        if dataset and before.get(key) and now.get(key) and before[key] != now[key]:
            place = f"dataset.path={dataset.path}" if dataset.path else f"dataset={dataset.name}"
            return (
                f"{place}: its data has changed since {run.folder} was made of it ({before[key]} then, "
                f"{now[key]} now); put the old data back, or remove that folder to run it anew, or set "
                "name=<another> to keep both"
            )
    return ""


def _of_content(files: Iterable[Path]) -> str:
    """What ``sha256sum`` of the files' names, in order, gives through another ``sha256sum``."""
    sums = [f"{_sha256(file)}  {file.name}\n" for file in sorted(files)]
    return "sha256:" + hashlib.sha256("".join(sums).encode("utf-8", "surrogateescape")).hexdigest()


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"dataset.path: {file} cannot be read ({reason(error)})") from None


def _of_names_and_sizes(folder: Path) -> str:
    digest = hashlib.sha256()
    for stems in SPLITS.values():
        for stem in stems:
            for name, size in _walk(folder / stem):
                digest.update(os.fsencode(f"{stem}/{name}\0{size}\n"))
    return "names-and-sizes:" + digest.hexdigest()


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Name below `folder` and bytes of each file that is not hidden, in order."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # what reads the pictures says so
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry), f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name, entry.stat().st_size


_DIGESTS: Mapping[DatasetKind, Callable[[Path], str]] = {
    DatasetKind.digits: lambda folder: "",  # scikit-learn's own
    DatasetKind.text: lambda folder: _of_content(split_files(folder, FORMATS).values()),
    DatasetKind.language: lambda folder: _of_content(split_files(folder, LINE_FORMATS).values()),
    DatasetKind.reuters_r8: lambda folder: _of_content(_there(folder, reuters_r8.FILES)),
    DatasetKind.listops: lambda folder: _of_content(_there(folder, (listops.SUMS,))),
    DatasetKind.imagenet: _of_names_and_sizes,
}


def _there(folder: Path, names: Iterable[str]) -> list[Path]:
    return [file for name in names if (file := folder / name).is_file()]
