"""A figure as bytes and as files."""

import io
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")  # each figure is written in all of them
_DOTS_PER_INCH = 200
_WITHOUT_TIME = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass(frozen=True)
class Drawn:
    """A figure with the name of its files and what a reader is to see in it."""

    name: str
    caption: str
    figure: Figure


def png(figure: Figure) -> bytes:
    """`figure` as a PNG for a page, 200 dots an inch; equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    return buffer.getvalue()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png, .pdf (fonts embedded) and .svg (letters as outlines); returns the paths.

    Neither has a time in it: equal figures are equal bytes. The folder must exist; OSError where a file
    cannot be written.
    """
    paths = [stem.parent / f"{stem.name}.{ending}" for ending in FORMATS]
    paths[0].write_bytes(png(figure))
    figure.set_layout_engine("none")  # it has been laid out, which takes as long as drawing it
    # Journals ask for TrueType, and not Type 3; with a salt of its own an SVG has no random names.
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "pmexp"}):
        for path in paths[1:]:
            ending = path.suffix[1:]
            figure.savefig(path, format=ending, metadata=_WITHOUT_TIME[ending])
    return paths
