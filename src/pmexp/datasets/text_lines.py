"""Reads lines of text in UTF-8, and says why a file has none."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path


class Unreadable(Exception):
    """Says why a file is not what its name says: line and reason."""


def text_lines(file: Path, newline: str | None = None) -> Iterator[str]:
    """Lines of text in UTF-8, without a byte order mark; `newline` as for open."""
    try:
        with file.open(encoding="utf-8-sig", newline=newline) as stream:
            for number, line in enumerate(stream, start=1):
                if "\0" in line:
                    raise Unreadable(f"line {number} holds a NUL character, as text in UTF-8 does not")
                yield line
    except UnicodeDecodeError:
        raise Unreadable(_wrong_byte(file)) from None


def _wrong_byte(file: Path) -> str:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 and line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                return "it is UTF-16; save it as UTF-8"
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return f"line {number} has the byte 0x{byte:02x}, which is no UTF-8; save it as UTF-8"
    return "it was changed while it was read"
