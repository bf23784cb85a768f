"""A figure as bytes and as files."""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

_DOTS_PER_INCH = 200
_WITHOUT_TIME = {"CreationDate": None}


def png(figure: Figure) -> bytes:
    """`figure` as a PNG for a page, 200 dots an inch; equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    return buffer.getvalue()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.pdf (vectors, fonts embedded, no time in it) and return both paths.

    Equal figures are equal bytes. The folder must exist; OSError where it cannot be written.
    """
    picture, page = (stem.parent / f"{stem.name}.{ending}" for ending in ("png", "pdf"))
    picture.write_bytes(png(figure))
    figure.set_layout_engine("none")  # it has been laid out, which takes as long as drawing it
    with rc_context({"pdf.fonttype": 42}):  # TrueType, as journals ask for, and not Type 3
        figure.savefig(page, format="pdf", metadata=_WITHOUT_TIME)
    return [picture, page]
