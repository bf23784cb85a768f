"""Disks that are full soon, or that nothing can be written to: a tmpfs, for tests that may mount."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kilobytes: int, options: str = "rw") -> Iterator[None]:
    """Mounts it on `folder`; the test is skipped where that is not allowed."""
    folder.mkdir(parents=True)
    with _mounted(folder, "tmpfs", "a small disk", "-t", "tmpfs", "-o", f"{options},size={kilobytes}k"):
        yield


@contextmanager
def read_only_view(folder: Path, of: Path) -> Iterator[None]:
    """Mounts `of` on `folder` once more, where nothing of it can be written; the test is skipped where that is
    not allowed."""
    folder.mkdir()
    with _mounted(folder, str(of), "a folder again", "--bind", "-o", "ro"):
        yield


@contextmanager
def _mounted(folder: Path, source: str, what: str, *options: str) -> Iterator[None]:
    mount = ["mount", *options, source, str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount {what}: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leaves no room on the disk of `folder`; the file that takes it."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("ab", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    return ballast
