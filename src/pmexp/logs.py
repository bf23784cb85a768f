"""Sends log lines and prints to the terminal and to files, without credentials. Imports no torch."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from pmexp.masking import masked
from pmexp.shown import printable


class _Masking(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(masked(super().format(record)), lines=True)


class _ToStderr(logging.Handler):
    """Writes to what sys.stderr is by then: a line of progress puts a stream there that writes above it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _MaskedStream:
    """A stream for text that masks what is written to it; in all else it is the one that it was made of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def to_terminal() -> None:
    """Shows on stderr the warnings of all loggers and pmexp's own lines from level INFO on."""
    handler = _ToStderr()
    handler.setFormatter(_Masking("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("pmexp").setLevel(logging.INFO)


_IN_FILES = _Masking("%(asctime)s %(levelname)s %(message)s")


def file_handler(file: Path) -> logging.FileHandler:
    """A handler that adds lines with time and level to `file`."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(_IN_FILES)
    return handler


def add_line(file: Path, text: str) -> None:
    """Adds an error to `file` in such a line; the terminal, which has it from the command, does not show it.
    Raises OSError where it cannot be written."""
    record = logging.makeLogRecord({"msg": text, "levelname": logging.getLevelName(logging.ERROR)})
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{_IN_FILES.format(record)}\n")


@contextmanager
def kept() -> Iterator[None]:
    """Has pmexp's lines go on to where they go, whatever code of somebody's own sets up inside: by default
    logging.config disables every logger that is there."""
    root, ours = logging.getLogger(), logging.getLogger("pmexp")
    handlers, off = (
        [(each, handler) for each in (root, ours) for handler in each.handlers],
        root.manager.disable,
    )
    level, passes_on = ours.level, ours.propagate
    try:
        yield
    finally:
        for each, handler in handlers:
            each.addHandler(handler)  # which a logger has once
        ours.level, ours.propagate, root.manager.disable = level, passes_on, off
        ours.disabled = False
        known = root.manager.loggerDict  # hundreds, looked at after each forward of an own part
        for logger in [known[name] for name in known if name.startswith("pmexp.")]:
            if isinstance(logger, logging.Logger):
                logger.disabled = False


def mask_output() -> None:
    """Masks what Python prints from now on: libraries' words, warnings and tracebacks."""
    sys.stdout, sys.stderr = (cast(TextIO, _MaskedStream(stream)) for stream in (sys.stdout, sys.stderr))
