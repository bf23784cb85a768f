"""A figure as bytes and as files."""

from pathlib import Path

from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """`figure` as a PNG for a page, 200 dots an inch; equal figures are equal bytes."""
    raise NotImplementedError


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.pdf (vectors, fonts embedded, no time in it) and return both paths.

    Equal figures are equal bytes. The folder must exist; OSError where it cannot be written.
    """
    raise NotImplementedError
