"""Finds the pictures of a folder, by class and at any depth, and what is left out of it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pmexp.errors import UserError

SUFFIXES = (
    ".apng", ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
_OF_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
_NAMED = 5  # files that were left out are named, the others counted


@dataclass
class FoundPictures:
    """What a folder holds below it."""

    pictures: list[str] = field(default_factory=list)  # paths, sorted folder by folder
    left_out: list[str] = field(default_factory=list)  # paths of files and folders

    def deeper(self, folder: Path) -> list[str]:
        """The folders below `folder` that hold pictures."""
        return sorted({os.path.dirname(path) for path in self.pictures} - {str(folder)})


def classes_of(split: Path) -> tuple[list[str], list[str]]:
    """The names of a split's class folders, sorted as texts, and the paths of what else lies beside them."""
    entries = sorted(os.scandir(split), key=lambda entry: entry.name)
    classes = [entry.name for entry in entries if entry.is_dir() and not _is_of_system(entry.name)]
    return classes, [entry.path for entry in entries if entry.name not in classes]


def pictures_of(folder: Path) -> FoundPictures:
    """The pictures below a class folder. Links are followed, but each folder is entered once.

    Raises UserError where there are none.
    """
    pictures = FoundPictures()
    for path, is_picture in _walk(str(folder), {os.path.realpath(folder)}):
        (pictures.pictures if is_picture else pictures.left_out).append(path)
    if not pictures.pictures:
        others = f"; it has {named_and_counted(pictures.left_out)}" if pictures.left_out else ""
        raise UserError(f"dataset.path: {folder} holds no picture ({', '.join(SUFFIXES)}){others}")
    return pictures


def named_and_counted(paths: list[str], below: Path | None = None) -> str:
    """How many paths there are, and the first of them by name."""
    names = [os.path.relpath(path, below) if below else os.path.basename(path) for path in paths[:_NAMED]]
    printable = ", ".join(name.encode("utf-8", "backslashreplace").decode() for name in names)
    return f"{len(paths)}: {printable}" + (", ..." if len(paths) > _NAMED else "")


def _walk(folder: str, seen: set[str]) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _is_of_system(entry.name):
                yield entry.path, False
            elif not entry.is_dir():
                yield entry.path, entry.is_file() and entry.name.lower().endswith(SUFFIXES)
            elif (place := os.path.realpath(entry.path)) in seen:
                yield entry.path, False
            else:
                seen.add(place)
                yield from _walk(entry.path, seen)


def _is_of_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS
