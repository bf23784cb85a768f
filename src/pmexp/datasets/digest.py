"""Computes digests of a dataset's files, which a run has on record from its start on."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pmexp.config import DatasetConfig, DatasetKind
from pmexp.datasets import django_messages, image_text, listops, own, reuters_r8
from pmexp.datasets.files import FORMATS
from pmexp.datasets.language import LINE_FORMATS
from pmexp.datasets.picture_folder import classes_of, pictures_of
from pmexp.datasets.tables import SPLITS, folder_of, split_files
from pmexp.errors import UserError, why_unread
from pmexp.run_folder.files import opened

_IN_CACHE = (DatasetKind.reuters_r8, DatasetKind.listops, DatasetKind.django_messages)  # fetched or generated
READ_AT_MOST = 2**30  # bytes of pictures, which takes a second or two


def digest_of_data(config: DatasetConfig) -> str:
    """Returns the digest of the files that `dataset.path` names, by content; empty where it names none.

    More than a GiB of pictures goes by name and size. Raises UserError where two files are of one split, or
    one cannot be read.
    """
    folder = folder_of(config.path) if config.path else None
    of_folder = _of_all_files if config.loader else _DIGESTS[config.kind]
    try:
        return of_folder(folder) if folder and os.path.isdir(folder) else ""
    except OSError as error:
        raise UserError(
            f"dataset.path: {error.filename} cannot be read ({why_unread(error)}); make it readable"
        ) from None


def digest_where_it_lies(config: DatasetConfig, origin: str) -> str:
    """Returns the digest of the folder that data was fetched to or generated in."""
    in_cache = config.kind in _IN_CACHE and not config.loader
    return _DIGESTS[config.kind](Path(origin)) if in_cache else ""


def of_content(files: Iterable[Path]) -> str:
    """Returns the sha256 of what ``sha256sum`` prints for the files, in the order of their names."""
    sums = [f"{sha256_of(file)}  {file.name}\n" for file in sorted(files)]
    return "sha256:" + hashlib.sha256("".join(sums).encode("utf-8", "surrogateescape")).hexdigest()


def sha256_of(file: Path) -> str:
    """Returns the digest of a file's content. Raises UserError where it cannot be read."""
    try:
        with opened(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({why_unread(error)}); make it readable") from None


def _of_pictures(folder: Path) -> str:
    """Digests the pictures of all classes of a folder."""
    splits = [place for stems in SPLITS.values() for stem in stems if (place := folder / stem).is_dir()]
    files = [
        picture
        for split in splits
        for name in classes_of(split)[0]
        for picture in pictures_of(split / name).pictures
    ]
    return _of_names_and_content(files, folder)


def _of_captioned(folder: Path) -> str:
    """Digests the tables and all pictures of a folder."""
    tables = map(str, image_text.table_files(folder).values())
    return _of_names_and_content([*tables, *pictures_of(folder).pictures], folder)


def _of_all_files(folder: Path) -> str:
    return _of_names_and_content(own.files_of(folder), folder)


def _of_names_and_content(files: list[str], folder: Path) -> str:
    """Digests names and content, or names and sizes where the files are too many to read at each start."""
    sizes = {file: os.path.getsize(file) for file in files}
    to_read = sum(sizes.values()) <= READ_AT_MOST
    digest = hashlib.sha256()
    for file, size in sizes.items():
        content = sha256_of(Path(file)) if to_read else str(size)
        digest.update(os.fsencode(f"{os.path.relpath(file, folder)}\0{content}\n"))
    return f"{'sha256' if to_read else 'names-and-sizes'}:{digest.hexdigest()}"


_DIGESTS: Mapping[DatasetKind, Callable[[Path], str]] = {
    DatasetKind.digits: lambda folder: "",  # scikit-learn's own
    DatasetKind.text: lambda folder: of_content(split_files(folder, FORMATS).values()),
    DatasetKind.language: lambda folder: of_content(split_files(folder, LINE_FORMATS).values()),
    DatasetKind.reuters_r8: lambda folder: of_content(_existing(folder, reuters_r8.FILES)),
    DatasetKind.listops: lambda folder: of_content(_existing(folder, (listops.SUMS,))),
    DatasetKind.imagenet: _of_pictures,
    DatasetKind.translation: lambda folder: of_content(split_files(folder, FORMATS).values()),
    DatasetKind.django_messages: lambda folder: of_content(_existing(folder, django_messages.FILES)),
    DatasetKind.image_text: _of_captioned,
    DatasetKind.digit_captions: lambda folder: "",  # scikit-learn's own
    DatasetKind.tagged: lambda folder: of_content(split_files(folder, FORMATS).values()),
}


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [file for name in names if (file := folder / name).is_file()]
